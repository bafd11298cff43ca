"""The append-only record of everything that happened (spec 3)."""
