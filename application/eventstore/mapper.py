"""Between domain events and rows: stable names, JSON payloads, old versions upcast on read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID, uuid4

from domain.aggregate import BASE_FIELDS, Event, Json

# Kept beside the payload when it is not 1: an event's shape, for upcasting.
VERSION_KEY = "class_version"


class NewRow(TypedDict):
    """An event on its way into the store."""

    stream_id: str
    sequence_num: int
    event_id: str
    event_type: str
    timestamp: datetime
    event_data: Json
    metadata: Json


class Recorded(NamedTuple):
    """An event as the store has it."""

    position: int
    event_id: UUID
    stream_id: str
    sequence_num: int
    event_type: str
    timestamp: datetime
    event_data: Json
    metadata: Json

    def full_metadata(self) -> Json:
        """The metadata with what a compact event leaves out: its id and type say it already."""
        if "request_id" in self.metadata:
            return self.metadata
        return {"request_id": str(self.event_id), "command": self.event_type, **self.metadata}


class Origin(NamedTuple):
    """Which command made an event, and who sent it (spec 3)."""

    request_id: str
    actor: str
    command: str
    command_id: str | None = None
    tags: Json | None = None


class Mapper:
    """Knows every event by the name that the store keeps for it."""

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
        compacted = False
        for event in events:
            cls = type(event)
            compact = cls.compact and not compacted and origin.command == cls.event_type
            compacted = compacted or compact
            metadata = own if compact else full
            if cls.class_version > 1:
                metadata = {**metadata, VERSION_KEY: cls.class_version}
            rows.append(
                {
                    "stream_id": event.originator_id,
                    "sequence_num": event.originator_version,
                    "event_id": origin.request_id if compact else str(uuid4()),
                    "event_type": cls.event_type,
                    "timestamp": event.timestamp,
                    "event_data": {
                        name: value
                        for name in self._payload[cls]
                        if (value := getattr(event, name)) is not None
                    },
                    "metadata": metadata,
                }
            )
        return rows

    def event(
        self,
        stream_id: str,
        sequence_num: int,
        event_type: str,
        timestamp: datetime,
        data: Json,
        metadata: Json,
    ) -> Event:
        """The domain event of a row, in today's shape."""
        cls = self._classes[event_type]
        version = metadata.get(VERSION_KEY, 1)
        while version < cls.class_version:
            data = dict(data)
            getattr(cls, f"upcast_v{version}_v{version + 1}")(data)
            version += 1
        payload: Json = {
            **data,
            "originator_id": stream_id,
            "originator_version": sequence_num,
            "timestamp": timestamp,
        }
        return cls(**payload)
