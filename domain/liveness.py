"""Alive or not: pure functions of two times and a threshold (S3 FR-5, S4 2.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

Colour = Literal["green", "yellow", "red"]

GREEN_BELOW_SECONDS = 60  # S3 FR-6
YELLOW_BELOW_SECONDS = 180  # S3 FR-6


class Serving(NamedTuple):
    """Since when the service has been there to hear anyone, and since when it had not been before.

    Its own absence is nobody's silence (spec 5): what could not be heard does not count. Without
    times nothing is known of any absence, and all silence counts.
    """

    since: datetime | None = None
    absent_since: datetime | None = None


ALWAYS = Serving()


def age_seconds(then: datetime, now: datetime) -> float:
    """Seconds from ``then`` to ``now``, never below 0: two hosts' clocks may disagree a little."""
    return max(0.0, (now - then).total_seconds())


def is_past(then: datetime, now: datetime, threshold_seconds: float) -> bool:
    """Whether more than ``threshold_seconds`` have gone by. At the threshold itself: not yet."""
    return age_seconds(then, now) > threshold_seconds


def silent_seconds(then: datetime, now: datetime, serving: Serving) -> float:
    """For how long there was no sign of life since ``then`` though it would have been heard."""
    if serving.since is None:
        return age_seconds(then, now)
    return age_seconds(max(then, serving.since), now)


def unknown_since(then: datetime, serving: Serving) -> datetime | None:
    """Since when nothing is known of someone whose last sign of life was ``then``.

    None if the service has been there ever since.
    """
    if serving.since is None or then >= serving.since:
        return None
    return then if serving.absent_since is None else max(then, serving.absent_since)


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
