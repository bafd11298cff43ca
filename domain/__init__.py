"""The rules: aggregates decide, events record. No I/O and no clock; time is always an argument."""
