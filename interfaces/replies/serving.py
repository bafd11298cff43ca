"""Replies about the service itself (spec 5)."""

from __future__ import annotations

from typing_extensions import TypedDict

from interfaces.replies.base import Page, Time


class ServingInterval(TypedDict):
    """A stretch of time in which the service could be reached."""

    started_at: Time
    last_at: Time
    is_current: bool


class ServingIntervals(Page):
    """When the service could be reached, the latest first; between two intervals it was away."""

    serving_since: Time | None
    absent_since: Time | None
    intervals: list[ServingInterval]


class DeadLetter(TypedDict):
    """An event that a read model could not fold. What is null of it is not in the log any more."""

    position: int
    read_model: str
    error: str
    set_aside_at: Time
    event_id: str | None
    event_type: str | None
    stream_id: str | None
    sequence_num: int | None
    timestamp: Time | None


class DeadLetterPage(Page):
    """Dead letters in the order of the log."""

    dead_letters: list[DeadLetter]
