"""Alive or not: pure functions of two times and a threshold (S3 FR-5, S4 2.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

Colour = Literal["green", "yellow", "red"]

GREEN_BELOW_SECONDS = 60  # S3 FR-6
YELLOW_BELOW_SECONDS = 180  # S3 FR-6


def age_seconds(then: datetime, now: datetime) -> float:
    """Seconds from ``then`` to ``now``, never below 0: two hosts' clocks may disagree a little."""
    return max(0.0, (now - then).total_seconds())


def is_past(then: datetime, now: datetime, threshold_seconds: float) -> bool:
    """Whether more than ``threshold_seconds`` have gone by. At the threshold itself: not yet."""
    return age_seconds(then, now) > threshold_seconds


def human_age(seconds: float) -> str:
    """``45s ago``, ``2m ago``, ``3h ago``, ``2d ago``: whole units, rounded down (S3 FR-5)."""
    whole = int(max(0.0, seconds))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit} ago"
    return f"{whole}s ago"


def colour(seconds: float) -> Colour:
    """The traffic light for a heartbeat's age (S3 FR-6)."""
    if seconds < GREEN_BELOW_SECONDS:
        return "green"
    return "yellow" if seconds < YELLOW_BELOW_SECONDS else "red"
