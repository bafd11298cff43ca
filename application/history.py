"""Reading history: a stream's events, its state at any event, the difference of two states (S2).

States are folded by the same code as live aggregates, from the nearest earlier snapshot, so a state
in a long stream is found as fast as in a short one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from application.eventstore.mapper import Mapper, Recorded
from application.eventstore.records import Criteria
from application.eventstore.store import PAGE_BYTES, EventStore
from domain.aggregate import Aggregate, Json
from domain.claims.claim import Claim
from domain.errors import InvalidInput, StreamNotFound
from domain.instances.instance import Instance
from domain.liveness import Serving
from domain.machines.machine import Machine
from domain.sessions.session import Session

CATEGORIES: Mapping[str, type[Aggregate]] = {
    cls.category: cls for cls in (Session, Instance, Claim, Machine)
}


class Found(NamedTuple):
    """A page of events, and the number of all that match."""

    events: list[Recorded]
    total_count: int
    has_more: bool


class History:
    """One namespace's history. Raises :class:`StreamNotFound` for an unknown stream."""

    def __init__(self, store: EventStore, mapper: Mapper) -> None:
        self._store = store
        self._mapper = mapper

    def find(
        self,
        namespace: str,
        stream_id: str,
        criteria: Criteria,
        limit: int,
        offset: int = 0,
        past: int | None = None,
    ) -> Found:
        """A stream's events that match the criteria, after the event number ``past``."""
        if self._store.version(namespace, stream_id) == 0:
            raise StreamNotFound.named(stream_id)
        if criteria.start and criteria.end and criteria.start > criteria.end:
            raise InvalidInput.of("start_date", "lies after end_date")
        events, has_more = self._store.find_in_stream(
            namespace, stream_id, criteria, limit, offset, past
        )
        total = self._store.count_in_stream(namespace, stream_id, criteria)
        return Found(events, total, has_more)

    def after(
        self, namespace: str, position: int, upto: int, limit: int, types: Sequence[str] = ()
    ) -> tuple[list[Recorded], bool]:
        """The namespace's events after a position, in commit order, and whether there are more."""
        return self._store.page_of_log(
            namespace, after=position, upto=upto, limit=limit, types=types
        )

    def head(self, namespace: str) -> int:
        """The position of the namespace's last event; 0 if it has none."""
        return self._store.head(namespace)

    def first(self, namespace: str, stream_id: str) -> Recorded:
        """A stream's first event."""
        events = self._store.read_stream(namespace, stream_id, upto=1)
        if not events:
            raise StreamNotFound.named(stream_id)
        return events[0]

    def current(self, namespace: str, stream_id: str) -> tuple[Aggregate, datetime]:
        """The aggregate as it is now, and the database's time."""
        version = self._store.version(namespace, stream_id)
        if version == 0:
            raise StreamNotFound.named(stream_id)
        return self.state_at(namespace, stream_id, version), self._store.clock()

    def serving(self) -> Serving:
        """Since when the service has been reachable."""
        return self._store.serving()[1]

    def state_at(self, namespace: str, stream_id: str, sequence_num: int) -> Aggregate:
        """The aggregate as it was after the given event, which must exist."""
        cls = _class_of(stream_id)
        snapshot = self._store.snapshot_before(
            namespace, stream_id, cls.state_version, sequence_num
        )
        aggregate = cls.from_state(snapshot[1]) if snapshot else cls(id=stream_id)
        while aggregate.version < sequence_num:
            rows = self._store.read_stream(
                namespace,
                stream_id,
                after=aggregate.version,
                upto=sequence_num,
                most=PAGE_BYTES,
            )
            for row in rows:
                aggregate.mutate(self._mapper.event(*row[2:]))
        return aggregate

    def replay(
        self,
        namespace: str,
        stream_id: str,
        to_sequence_num: int | None = None,
        diff_from: int | None = None,
    ) -> Json:
        """The state as of an event (default: the last), in the form of S2's replay.

        With ``diff_from``, also the changes since that event.
        """
        started = time.perf_counter()
        version = self._store.version(namespace, stream_id)
        if version == 0:
            raise StreamNotFound.named(stream_id)
        to = _within(
            "to_sequence_num", version if to_sequence_num is None else to_sequence_num, version
        )
        final = self.state_at(namespace, stream_id, to)
        last = self._store.read_stream(namespace, stream_id, after=to - 1, upto=to)[0]
        state = final.state()
        answer: Json = {
            "success": True,
            "stream_id": stream_id,
            "final_state": {
                "last_epic": None,
                "checkpoint_state": None,
                **state,
                "last_event_type": last.event_type,
                "latest_timestamp": last.timestamp,
                "total_events_replayed": to,
            },
            "events_replayed": to,
        }
        if diff_from is not None:
            start = _within("diff_from", diff_from, version)
            before = self.state_at(namespace, stream_id, start).state()
            answer["diff"] = {"from": start, "to": to, "changed": changed(before, state)}
        answer["duration_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return answer


def changed(old: Json, new: Json) -> Json:
    """The differences of two states: from a dotted path to the old and the new value.

    A name that contains a dot, or is empty, is quoted: ``epics."v1.2".number``.
    """
    found: Json = {}
    _compare(old, new, "", found)
    return dict(sorted(found.items()))


def _compare(old: Json, new: Json, prefix: str, found: Json) -> None:
    for name in old.keys() | new.keys():
        path = f"{prefix}{_step(name)}"
        before, after = old.get(name), new.get(name)
        if _is_tree(before, after) and _is_tree(after, before):
            _compare(before or {}, after or {}, f"{path}.", found)
        elif not _same(before, after):
            found[path] = [before, after]


def _is_tree(value: object, beside: object) -> bool:
    """Whether to compare by members: an object, with another object or with nothing."""
    return isinstance(value, dict) or (value is None and isinstance(beside, dict) and bool(beside))


def _step(name: str) -> str:
    return name if name and not set(name) & {".", '"'} else json.dumps(name, ensure_ascii=False)


def _same(one: object, other: object) -> bool:
    """Whether two values are equal in JSON: 1 and 1.0 are, 1 and true are not."""
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case list(), list():
            return len(one) == len(other) and all(map(_same, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return one == other


def _class_of(stream_id: str) -> type[Aggregate]:
    cls = CATEGORIES.get(stream_id.partition("-")[0])
    if cls is None:
        raise StreamNotFound.named(stream_id)
    return cls


def _within(field: str, sequence_num: int, version: int) -> int:
    if not 1 <= sequence_num <= version:
        raise InvalidInput.of(field, f"must lie between 1 and {version}, the stream's last")
    return sequence_num
