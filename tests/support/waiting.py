"""Waiting for what is to happen, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 15.0
LOOK_SECONDS = 0.005


def eventually(look: Callable[[], T], what: str = "it") -> T:
    """The first true answer of ``look``. Fails after a while, naming what never happened."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen; the last look gave {answer!r}")
        time.sleep(LOOK_SECONDS)
    return answer
