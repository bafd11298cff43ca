"""Formats ages, durations and statuses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.text import Text

from holdfast import moments
from holdfast.cli.text import safe

GREEN_BELOW_SECONDS = 60  # S3 FR-6
YELLOW_BELOW_SECONDS = 180  # S3 FR-6
UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))

STYLES = {
    "active": "green",
    "healthy": "green",
    "paused": "blue",
    "idle": "blue",
    "degraded": "yellow",
    "waiting": "magenta",
    "stale": "red",
    "stalled": "red",
    "failed": "red",
    "closed": "dim",
    "completed": "dim",
}


def word(value: object, style: str = "") -> Text:
    """The value as text; empty for ``None``."""
    return Text("" if value is None else safe(value), style)


def status(value: str) -> Text:
    """A status in its colour."""
    return Text(safe(value), STYLES.get(value, ""))


def colour(seconds: float) -> str:
    """The traffic light for a heartbeat's age (S3 FR-6)."""
    if seconds < GREEN_BELOW_SECONDS:
        return "green"
    return "yellow" if seconds < YELLOW_BELOW_SECONDS else "red"


def length(seconds: float) -> str:
    """``45s``, ``2m``, ``3h``, ``2d``: whole units, rounded down (S3 FR-5)."""
    whole = int(max(0.0, seconds))
    for size, unit in UNITS:
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def countdown(seconds: float) -> str:
    """The time that is left, as ``4m 15s``."""
    minutes, rest = divmod(int(seconds + 0.999), 60)
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def heartbeat(seconds: float | None, unknown_since: str | None = None) -> Text:
    """The age of the last heartbeat, in the traffic light's colour.

    With a question mark if the service was away since: nobody can tell whether there was another.
    """
    if seconds is None:
        return Text("never", "red")
    if unknown_since is not None:
        return Text(f"{length(seconds)} ago?", "yellow")
    return Text(f"{length(seconds)} ago", colour(seconds))


def clock(timestamp: str) -> str:
    """A time in the reader's time zone, with its date unless that is today."""
    told = moments.read(timestamp)
    if told is None:
        return safe(timestamp)
    moment = told.astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def plural(count: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def percent(value: Any) -> Text:
    """The used share of the context window in per cent, yellow from 75 and red from 90."""
    if value is None:
        return Text()
    return Text(f"{value:.0f}%", "red" if value >= 90 else "yellow" if value >= 75 else "")
