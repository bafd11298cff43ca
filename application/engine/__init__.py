"""How commands are carried out: one writer, batches, units of work."""
