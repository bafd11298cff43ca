"""The eventsourcing library's own tests of what a recorder must do, run against ours.

The library's recorders differ from ours in two ways, which an adapter takes away: a state is any
bytes (ours: a JSON object), and a stream may begin with version 0 (ours begin with 1).
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from uuid import UUID

import orjson
import pytest
from eventsourcing.persistence import Notification, StoredEvent

from application.eventstore.store import EventStore
from tests.support.library_recorder import PostgresRecorder

if find_spec("Crypto") is None:
    # The library's module has tests of its cipher too, for which it wants a package that we lack.
    no_cipher = ModuleType("eventsourcing.cipher")
    no_cipher.AESCipher = object  # type: ignore[attr-defined]
    sys.modules.setdefault("eventsourcing.cipher", no_cipher)

from eventsourcing.tests import persistence as contract


class Adapter(PostgresRecorder):
    """Our recorder, with bytes for states and streams that may begin with 0."""

    def __init__(self, store: EventStore, url: str) -> None:
        super().__init__(store, "default", url)
        self._from_zero: set[object] = set()

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        self._from_zero |= {e.originator_id for e in stored_events if e.originator_version == 0}
        return super().insert_events([self._inward(event) for event in stored_events])

    def select_events(self, originator_id: UUID | str, **kwargs: Any) -> Sequence[StoredEvent]:
        return [self._outward(event) for event in super().select_events(originator_id, **kwargs)]

    def select_notifications(self, *args: Any, **kwargs: Any) -> Sequence[Notification]:
        found = super().select_notifications(*args, **kwargs)
        return [self._outward(notification) for notification in found]

    def _inward(self, event: StoredEvent) -> StoredEvent:
        return StoredEvent(
            originator_id=event.originator_id,
            originator_version=event.originator_version + (event.originator_id in self._from_zero),
            topic=event.topic,
            state=orjson.dumps({"state": event.state.decode()}),
        )

    def _outward(self, event: Any) -> Any:
        shift = event.originator_id in self._from_zero
        return type(event)(
            **{
                **vars(event),
                "originator_version": event.originator_version - shift,
                "state": orjson.loads(event.state)["state"].encode(),
            }
        )


class WithoutPositions(Adapter):
    """What the library calls an aggregate recorder: it has no log, so no positions to tell."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        super().insert_events(stored_events)
        return None


class Ours:
    """Where the library's tests get their recorder from."""

    recorder_class: type[Adapter] = Adapter

    @pytest.fixture(autouse=True)
    def _on_a_database(self, database: str) -> Any:
        self._url = database
        self._store = EventStore.at(database, size=12)
        yield
        self._store.close()

    def create_recorder(self) -> Adapter:
        return self.recorder_class(self._store, self._url)

    def new_originator_id(self) -> str:
        return str(uuid.uuid4())


class TestAsApplicationRecorder(
    Ours,
    contract.ApplicationRecorderTestCase[Adapter],
):
    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestAsAggregateRecorder(Ours, contract.AggregateRecorderTestCase):
    recorder_class = WithoutPositions


class TestNotificationsDoNotInterleave(
    Ours,
    contract.NonInterleavingNotificationIDsBaseCase,
):
    pass
