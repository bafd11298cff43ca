"""What this process does with memory that it does not need any more."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

# How many objects come before the collector looks at them. What a request makes is gone by then;
# at Python's own setting a busy service stands still for tens of milliseconds now and then.
YOUNG_OBJECTS = 50_000

# Parameters of glibc's mallopt, and their values: pieces that large go back to the system as soon
# as they are free, and threads share a few pools of the others. By itself glibc keeps what was
# once freed, for each thread: a page of 8 MiB passes through several of them.
_MMAP_THRESHOLD, _LARGE = -3, 256 * 1024
_TRIM_THRESHOLD, _KEPT = -1, 1024 * 1024
_ARENA_MAX, _ARENAS = -8, 2


def tune() -> None:
    """Call once all that stays is imported and built."""
    # The collector need not look at it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    if sys.platform == "linux":
        # Another C library has no such function, or ignores it.
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, _LARGE)
            mallopt(_TRIM_THRESHOLD, _KEPT)
            mallopt(_ARENA_MAX, _ARENAS)
