"""One namespace of the store as the eventsourcing library's recorder and subscription.

The service does not use it. It lets the library's own tests of a recorder run against the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import orjson
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)

from application.eventstore.mapper import Recorded
from application.eventstore.records import VersionConflict
from application.eventstore.store import MAX_POSITION, EventStore
from application.eventstore.subscription import LogListener

BATCH = 500


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
            limit=None if desc else limit,
        )
        if desc:
            rows = rows[::-1][:limit]
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
        rows, _ = self.store.page_of_log(
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

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> LogSubscription:
        """The log after a position, for ever: what is there, then what comes."""
        return LogSubscription(self, self.url, gt=gt, topics=topics)


class LogSubscription(Subscription[PostgresRecorder]):
    """Iterates over a namespace's log and waits at its end; ``stop`` ends the iteration."""

    def __init__(
        self,
        recorder: PostgresRecorder,
        url: str,
        gt: int | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listener = LogListener(url)
        self._ready: deque[Notification] = deque()

    def stop(self) -> None:
        """End the iteration, also one that waits in another thread."""
        super().stop()
        self._listener.wake()

    def __exit__(self, *args: object, **kwargs: object) -> None:
        super().__exit__(*args, **kwargs)
        self._listener.close()

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            if self._ready:
                notification = self._ready.popleft()
                self._last_notification_id = notification.id
                return notification
            self._ready.extend(
                self._recorder.select_notifications(
                    start=self._last_notification_id,
                    limit=BATCH,
                    topics=self._topics,
                    inclusive_of_start=False,
                )
            )
            if not self._ready:
                self._listener.wait()
        raise StopIteration


def _notification(row: Recorded) -> Notification:
    return Notification(
        id=row.position,
        originator_id=row.stream_id,
        originator_version=row.sequence_num,
        topic=row.event_type,
        state=orjson.dumps(row.event_data),
    )
