"""Maps events to rows and back: stable names, JSON payloads, old versions upcast on read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict
from uuid import UUID, uuid4

from domain.aggregate import BASE_FIELDS, Event, Json

# Stored beside the payload unless it is 1: the event's version, for upcasting.
VERSION_KEY = "class_version"
# In a compact event's metadata: its id minus the request's, where a request wrote several.
OFFSET_KEY = "n"


class NewRow(TypedDict):
    """A row to append to the store."""

    stream_id: str
    sequence_num: int
    event_id: str
    event_type: str
    timestamp: datetime
    event_data: Json
    metadata: Json


class Recorded(NamedTuple):
    """An event as read from the store."""

    position: int
    event_id: UUID
    stream_id: str
    sequence_num: int
    event_type: str
    timestamp: datetime
    event_data: Json
    metadata: Json

    def full_metadata(self) -> Json:
        """The metadata, completed from the id and type where a compact event leaves fields out."""
        if "request_id" in self.metadata:
            return self.metadata
        rest = dict(self.metadata)
        request_id = UUID(int=self.event_id.int - rest.pop(OFFSET_KEY, 0))
        return {"request_id": str(request_id), "command": self.event_type, **rest}


class Origin(NamedTuple):
    """The command that wrote an event, and who sent it (spec 3)."""

    request_id: str
    actor: str
    command: str
    command_id: str | None = None
    tags: Json | None = None
    # The index of the command within its request, from 0.
    offset: int = 0

    def event_id(self) -> str:
        """The id of the command's first event: the request's id plus the command's part number."""
        if self.offset == 0:
            return self.request_id
        digits = f"{_number(self.request_id) + self.offset:032x}"
        parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
        return "-".join(parts)


@lru_cache(maxsize=64)
def _number(uuid: str) -> int:
    """The id as a number, cached because a bulk request asks for it once per part."""
    return UUID(uuid).int


class Mapper:
    """Knows every event class by the name that the store has for it."""

    def __init__(self, event_classes: Iterable[type[Event]]) -> None:
        self._classes = {cls.event_type: cls for cls in event_classes}
        self._payload = {
            cls: tuple(f.name for f in fields(cls) if f.name not in BASE_FIELDS)  # type: ignore[arg-type]
            for cls in self._classes.values()
        }

    def rows(self, events: Iterable[Event], origin: Origin) -> list[NewRow]:
        """The events of one command as rows.

        A heartbeat is stored compactly: its id is the request's, so that neither the request's id
        nor the command's name need be stored with it (:meth:`Recorded.full_metadata`).
        """
        own: Json = {**origin.tags} if origin.tags else {}
        own["actor"] = origin.actor
        if origin.command_id is not None:
            own["command_id"] = origin.command_id
        full = {**own, "request_id": origin.request_id, "command": origin.command}
        rows: list[NewRow] = []
        id_is_free = True
        for event in events:
            cls = type(event)
            takes_id = id_is_free and (cls.compact or cls.takes_request_id)
            id_is_free = id_is_free and not takes_id
            compact = cls.compact and takes_id and origin.command == cls.event_type
            metadata = own if compact else full
            if compact and origin.offset:
                metadata = {**own, OFFSET_KEY: origin.offset}
            if cls.class_version > 1:
                metadata = {**metadata, VERSION_KEY: cls.class_version}
            rows.append(
                {
                    "stream_id": event.originator_id,
                    "sequence_num": event.originator_version,
                    "event_id": origin.event_id() if takes_id else str(uuid4()),
                    "event_type": cls.event_type,
                    "timestamp": event.timestamp,
                    "event_data": self._payload_of(event),
                    "metadata": metadata,
                }
            )
        return rows

    def _payload_of(self, event: Event) -> Json:
        if event.open_payload:
            data: Json = getattr(event, "data")  # noqa: B009 - only such events have it
            return data
        return {
            name: value
            for name in self._payload[type(event)]
            if (value := getattr(event, name)) is not None
        }

    def event(
        self,
        stream_id: str,
        sequence_num: int,
        event_type: str,
        timestamp: datetime,
        data: Json,
        metadata: Json,
    ) -> Event:
        """The domain event of a row, upcast to the current version."""
        cls = self._classes[event_type]
        version = metadata.get(VERSION_KEY, 1)
        while version < cls.class_version:
            data = dict(data)
            getattr(cls, f"upcast_v{version}_v{version + 1}")(data)
            version += 1
        payload: Json = {
            **({"data": data} if cls.open_payload else data),
            "originator_id": stream_id,
            "originator_version": sequence_num,
            "timestamp": timestamp,
        }
        return cls(**payload)
