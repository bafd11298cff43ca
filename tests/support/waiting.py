"""Waiting for what is to happen, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Patience costs nothing as long as what is awaited comes, and a loaded machine takes its time.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.005


def eventually(look: Callable[[], T], what: str = "it") -> T:
    """The first true answer of ``look``. Fails after a while, naming what never happened."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen; the last look gave {answer!r}")
        time.sleep(LOOK_SECONDS)
    return answer
