"""The eventsourcing library's view of the store: one namespace as an application's recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import orjson
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
)

from application.eventstore.mapper import Recorded
from application.eventstore.store import MAX_POSITION, EventStore, VersionConflict
from application.eventstore.subscription import LogSubscription


class PostgresRecorder(ApplicationRecorder):
    """Records and selects the events of one namespace. A state is the bytes of a JSON object."""

    def __init__(self, store: EventStore, namespace: str, url: str) -> None:
        self.store = store
        self.namespace = namespace
        self.url = url

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events; their positions. Raises ``IntegrityError`` on a conflict."""
        if not stored_events:
            return None
        now = self.store.clock()
        try:
            appended = self.store.append(
                self.namespace,
                [
                    {
                        "stream_id": str(event.originator_id),
                        "sequence_num": event.originator_version,
                        "event_id": str(uuid4()),
                        "event_type": event.topic,
                        "timestamp": now,
                        "event_data": orjson.loads(event.state),
                        "metadata": {},
                    }
                    for event in stored_events
                ],
            )
        except VersionConflict as e:
            raise IntegrityError(str(e)) from e
        return list(range(appended.head - len(stored_events) + 1, appended.head + 1))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """A stream's events with ``gt < sequence number <= lte``."""
        rows = self.store.read_stream(
            self.namespace,
            str(originator_id),
            after=gt or 0,
            upto=MAX_POSITION if lte is None else lte,
            limit=limit,
            backwards=desc,
        )
        return [
            StoredEvent(
                originator_id=row.stream_id,
                originator_version=row.sequence_num,
                topic=row.event_type,
                state=orjson.dumps(row.event_data),
            )
            for row in rows
        ]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The log from a position on, in commit order."""
        after = start or 0
        if start is not None and inclusive_of_start:
            after -= 1
        rows = self.store.read_log(
            self.namespace,
            after=after,
            upto=MAX_POSITION if stop is None else stop,
            limit=limit,
            types=topics,
        )
        return [_notification(row) for row in rows]

    def max_notification_id(self) -> int | None:
        """The log's head; None for an empty log."""
        return self.store.head(self.namespace) or None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> LogSubscription[PostgresRecorder]:
        """The log after a position, for ever: what is there, then what comes."""
        return LogSubscription(self, self.url, gt=gt, topics=topics)


def _notification(row: Recorded) -> Notification:
    return Notification(
        id=row.position,
        originator_id=row.stream_id,
        originator_version=row.sequence_num,
        topic=row.event_type,
        state=orjson.dumps(row.event_data),
    )
