"""The bases of every aggregate and every domain event.

An aggregate is a dataclass of plain state. Its methods check the rules and call
:meth:`Aggregate.record`, which creates the event, applies it, and keeps it pending; nothing else
changes state. Replaying the same events therefore gives the same state, and a state can be saved
and restored as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from eventsourcing.domain import CanMutateAggregate, MetaDomainEvent
from pydantic import TypeAdapter
from pydantic_core import to_json

from domain.errors import InvalidInput

Json = dict[str, Any]

MAX_METADATA_BYTES = 64 * 1024  # spec 9

BASE_FIELDS = ("originator_id", "originator_version", "timestamp")


class Event(CanMutateAggregate[str], metaclass=MetaDomainEvent):
    """Something that happened to one aggregate. Immutable; its payload is JSON.

    ``event_type`` is the stable name that is stored; the Python class may be renamed or moved.
    Raise ``class_version`` when the payload's shape changes, and add a static method
    ``upcast_v1_v2(state)`` for each step.
    """

    originator_id: str
    originator_version: int
    timestamp: datetime

    event_type: ClassVar[str]
    class_version: ClassVar[int] = 1
    # Whether the payload is one mapping, the field ``data``, stored as it is.
    open_payload: ClassVar[bool] = False
    # Whether the event's id is the request's id, so that the reply can name it.
    takes_request_id: ClassVar[bool] = False
    # Whether to store the event without metadata that readers can derive: heartbeats are frequent.
    compact: ClassVar[bool] = False

    def apply(self, aggregate: Any) -> None:
        """Apply the event to the aggregate: what every event changes, then what this one does."""
        aggregate.touched(self)
        self.change(aggregate)

    def change(self, aggregate: Any) -> None:
        """Apply what this event changes; most events override this."""


Payload = TypeVar("Payload", bound=Event)


@dataclass(slots=True, kw_only=True)
class Aggregate:
    """A consistency boundary. Its id is its stream id, its version the last sequence number."""

    category: ClassVar[str]
    # Raise it when the shape of the state changes; older snapshots are then ignored.
    state_version: ClassVar[int] = 1

    id: str
    version: int = 0
    pending: list[Event] = field(default_factory=list, repr=False, compare=False)

    def record(self, event_class: type[Payload], at: datetime, **payload: Any) -> Payload:
        """Create the event, apply it, and keep it until it is collected."""
        payload["originator_id"] = self.id
        payload["originator_version"] = self.version + 1
        payload["timestamp"] = at
        event = event_class(**payload)
        self.mutate(event)
        self.pending.append(event)
        return event

    def mutate(self, event: Event) -> None:
        """Apply one event, which must be the stream's next."""
        if event.originator_version != self.version + 1:
            raise ValueError(f"{self.id}: {event.originator_version} after {self.version}")
        event.apply(self)
        self.version = event.originator_version

    def touched(self, event: Event) -> None:
        """Apply what every event of the stream changes."""

    def collect_events(self) -> Sequence[Event]:
        """The events recorded since the last collection, oldest first."""
        pending, self.pending = self.pending, []
        return pending

    def state(self) -> Json:
        """The whole state as JSON, for snapshots, replay and diff."""
        state: Json = _adapter(type(self)).dump_python(self, mode="json", exclude={"pending"})
        return state

    @classmethod
    def from_state(cls, state: Json) -> Self:
        """Restore an aggregate from its :meth:`state`."""
        restored: Self = _adapter(cls).validate_python(state)
        return restored

    @classmethod
    def stream_id(cls, name: str) -> str:
        """The stream id of the aggregate with this key: ``session-<uuid>``."""
        return f"{cls.category}-{name}"

    @property
    def key(self) -> str:
        """The part of the stream id after the category: the id that users know."""
        return self.id[len(self.category) + 1 :]


_adapters: dict[type[Aggregate], TypeAdapter[Any]] = {}


def _adapter(cls: type[Aggregate]) -> TypeAdapter[Any]:
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def merged(metadata: Json, patch: Json | None) -> Json:
    """A copy of ``metadata`` with the patch merged; a null in the patch removes its key."""
    if not patch:
        return metadata
    both = {**metadata, **patch}
    return {key: value for key, value in both.items() if value is not None}


_SMALL = re.compile(rb"\de-\d")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_EXPONENT = re.compile(rb"e-(\d+)")


def stored_size(value: object) -> int:
    """Bytes of the value as stored JSON; the store writes ``1e-99`` out in digits."""
    json = to_json(value)
    if not _SMALL.search(json):
        return len(json)
    return len(json) + sum(map(int, _EXPONENT.findall(_STRING.sub(b"", json))))


def require_room(metadata: Json, patch: Json | None) -> None:
    """Raise :class:`InvalidInput` if the patch makes the metadata larger than 64 KiB of JSON.

    Existing metadata may be larger, because the service adds keys of its own.
    """
    if not patch:
        return
    size = stored_size(merged(metadata, patch))
    if size > MAX_METADATA_BYTES and size > stored_size(metadata):
        raise InvalidInput.of(
            "metadata", f"would be {size} bytes of JSON in all, of at most {MAX_METADATA_BYTES}"
        )


def iso(at: datetime) -> str:
    """A time as text for JSON: UTC with ``Z`` (spec 9)."""
    return at.isoformat().replace("+00:00", "Z")
