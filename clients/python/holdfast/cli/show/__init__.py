"""What the service answered, made readable. Nothing in here fetches anything."""
