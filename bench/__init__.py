"""``make bench``: the figures of the performance chapter, each measured side by side in one run."""
