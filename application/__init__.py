"""The use cases: commands, and how they are carried out."""
