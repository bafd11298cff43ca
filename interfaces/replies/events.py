"""Replies about what happened: events, replay, the catalogue of event types (S2)."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from domain.instances.work_events import Category
from interfaces.replies.base import Json, Page, Time


class Event(TypedDict):
    """Something that happened, for good."""

    event_id: str
    stream_id: str
    # Only in an instance's stream.
    instance_id: NotRequired[str]
    event_type: str
    sequence_num: int
    position: int
    timestamp: Time
    event_data: Json
    metadata: Json


class EventPage(Page):
    """Events of one stream."""

    events: list[Event]


class FeedPage(TypedDict):
    """Events of the whole namespace after a position, in commit order."""

    events: list[Event]
    # Go on after it.
    next_position: int
    has_more: NotRequired[bool]


# ``from`` is no name that a class can give to a field.
Change = TypedDict("Change", {"from": int, "to": int, "changed": dict[str, list[Any]]})
Change.__doc__ = "What changed between two events: dotted path to the old and the new value."


class Replay(TypedDict):
    """A stream's state at one of its events.

    ``final_state`` is the whole state, with ``last_epic``, ``last_event_type``,
    ``latest_timestamp``, ``total_events_replayed`` and ``checkpoint_state`` in every stream's.
    """

    success: bool
    stream_id: str
    final_state: Json
    events_replayed: int
    duration_ms: float
    # Only where diff_from was asked for.
    diff: NotRequired[Change]


class Emitted(TypedDict):
    """An event that was recorded."""

    success: bool
    event_id: str
    sequence_num: int
    timestamp: Time


class Checkpoint(TypedDict):
    """A checkpoint that was recorded."""

    checkpoint_id: str
    instance_id: str
    label: str
    sequence_num: int
    created_at: Time


class EventType(TypedDict):
    """A type of event, and which fields its data has."""

    type: str
    description: str
    category: Category
    required_fields: list[str]
    optional_fields: list[str]


class EventTypes(TypedDict):
    """Every type of event that an instance's stream can have."""

    event_types: list[EventType]
