"""A tour: a small fleet at work, one of them killed, its work carried on elsewhere."""
