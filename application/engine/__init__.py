"""The command engine: one writer thread, batches, units of work."""
