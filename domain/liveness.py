"""Liveness: pure functions of times and thresholds (S3 FR-5, S4 2.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

Colour = Literal["green", "yellow", "red"]

GREEN_BELOW_SECONDS = 60  # S3 FR-6
YELLOW_BELOW_SECONDS = 180  # S3 FR-6


class Serving(NamedTuple):
    """Since when the service has been reachable, and when its last outage began.

    An outage of the service does not count as silence (spec 5). Without times no outage is known,
    and all silence counts.
    """

    since: datetime | None = None
    absent_since: datetime | None = None


ALWAYS = Serving()


def age_seconds(then: datetime, now: datetime) -> float:
    """Seconds from ``then`` to ``now``, at least 0, because clocks of hosts differ a little."""
    return max(0.0, (now - then).total_seconds())


def is_past(then: datetime, now: datetime, threshold_seconds: float) -> bool:
    """Whether more than ``threshold_seconds`` have passed; exactly the threshold is not past."""
    return age_seconds(then, now) > threshold_seconds


def silent_seconds(then: datetime, now: datetime, serving: Serving) -> float:
    """Seconds of silence since ``then``, counting only while the service was reachable."""
    if serving.since is None:
        return age_seconds(then, now)
    return age_seconds(max(then, serving.since), now)


def unknown_since(then: datetime, serving: Serving) -> datetime | None:
    """When the outage began in which a heartbeat after ``then`` could not be received.

    None if the service has been reachable ever since.
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
    """The traffic-light colour for a heartbeat's age (S3 FR-6)."""
    if seconds < GREEN_BELOW_SECONDS:
        return "green"
    return "yellow" if seconds < YELLOW_BELOW_SECONDS else "red"
