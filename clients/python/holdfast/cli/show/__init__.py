"""Prints the service's replies for people. These modules fetch nothing."""
