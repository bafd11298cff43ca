"""Shortens histories for reading: groups successive heartbeats, and states as dotted paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.types import Event

# The id of a session's place begins with it. Sessions claim places, as they claim work items.
PLACE = "@"
HEARTBEATS = frozenset({"instance_heartbeat", "session_heartbeat", "machine_heartbeat"})


def runs(events: Sequence[Event], apart: bool = False) -> list[list[Event]]:
    """The events in groups: successive heartbeats share one, unless ``apart``."""
    found: list[list[Event]] = []
    for event in events:
        beats = event["event_type"] in HEARTBEATS
        if beats and not apart and found and found[-1][-1]["event_type"] == event["event_type"]:
            found[-1].append(event)
        else:
            found.append([event])
    return found


def flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of all that is not empty, quoted as in ``epics."v1.2".number``."""
    for name, value in state.items():
        path = f"{prefix}{_step(name)}"
        if isinstance(value, dict):
            yield from flat(value, f"{path}.")
        elif not is_empty(value):
            yield path, value


def is_about_a_place(event: Event) -> bool:
    """Whether the event is about the claim of a place, which keeps other sessions out of it."""
    resource = event["event_data"].get("resource")
    held = isinstance(resource, str) and resource.startswith(PLACE)
    return held or event["stream_id"].startswith(f"claim-{PLACE}")


def is_empty(value: Any) -> bool:
    """Whether the value is null or an empty text, list or object."""
    return value is None or value in ({}, [], "")


def _step(name: str) -> str:
    return name if name and not set(name) & {".", '"'} else json.dumps(name, ensure_ascii=False)
