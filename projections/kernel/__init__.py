"""How read models are kept up to date and read."""
