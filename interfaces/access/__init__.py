"""Who may do what: keys, and what repeated attempts leave in the log."""
