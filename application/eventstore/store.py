"""The event store: append, load, read. One log for each namespace (spec 3)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import orjson
import psycopg
from psycopg.rows import class_row, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from application.eventstore import connect, sql
from application.eventstore.mapper import NewRow, Recorded
from application.eventstore.records import (
    Appended,
    Criteria,
    Loaded,
    NewReceipt,
    Receipt,
    ReceiptConflict,
    VersionConflict,
)
from domain.aggregate import Json
from domain.liveness import Serving

P = ParamSpec("P")
T = TypeVar("T")
Rows = Generator[tuple[Any, ...], None, None]

MAX_POSITION = 2**63 - 1
# The size limit of a page of events as JSON (spec 9); a single event may be larger.
PAGE_BYTES = 8 * 1024 * 1024
MAX_PAGE = 10_000
# Rows per fetch, where the page ends by bytes.
AT_ONCE = 32
# Very frequent types, which the index by type leaves out.
HEARTBEATS = frozenset({"session_heartbeat", "instance_heartbeat", "machine_heartbeat"})
# The most bytes of an event in a reply besides its data, metadata and stream names.
_AROUND = 512

_SQL = sql.load("application.eventstore", "queries.sql")


def _asked_again(
    question: Callable[Concatenate[EventStore, P], T],
) -> Callable[Concatenate[EventStore, P], T]:
    """Retry once if the connection was broken. Only for calls that may run twice.

    After an outage all idle connections are broken; without this the first calls would fail.
    """

    @wraps(question)
    def asked(store: EventStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with connect.told_apart():
            try:
                return question(store, *args, **kwargs)
            except psycopg.OperationalError as e:
                if store._held is not None or not connect.has_broken(e):
                    raise
                store._pool.check()
                return question(store, *args, **kwargs)

    return asked


class EventStore:
    """The store, using one pool of connections. Thread-safe.

    Every method raises :class:`~domain.errors.Unavailable` when the database cannot be reached.
    """

    def __init__(self, pool: ConnectionPool, held: psycopg.Connection | None = None) -> None:
        self._pool = pool
        self._held = held
        # What was appended in the current transaction.
        self._written: list[NewRow] = []
        self._connection: Callable[[], AbstractContextManager[psycopg.Connection]] = (
            pool.connection if held is None else lambda: nullcontext(held)
        )

    @classmethod
    def at(cls, url: str, *, size: int = 4, checked: bool = False) -> EventStore:
        """The store of a database, used under the service's role.

        ``checked`` tests each connection before use (:func:`connect.pool`).
        """
        return cls(connect.pool(connect.conninfo(url), size, checked=checked))

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextmanager
    def exclusive(self, namespace: str) -> Iterator[EventStore]:
        """The store within a transaction that locks the namespace's log against other appends.

        Appended events are durable once the block has ended without an error.
        """
        written: list[NewRow] = []
        with connect.told_apart():
            try:
                with self._pool.connection() as connection, connection.transaction():
                    connection.execute(_SQL["hold"], {"namespace": namespace})
                    held = EventStore(self._pool, held=connection)
                    yield held
                    written = held._written
            except connect.Unanswered:
                raise
            except psycopg.OperationalError:
                # The commit may have succeeded and only its acknowledgement been lost.
                if not written:
                    raise
                self._pool.check()
                if self._find(namespace, written[-1]) is None:
                    raise

    def append(
        self,
        namespace: str,
        rows: Sequence[NewRow],
        expected: Mapping[str, int] | None = None,
        receipts: Sequence[NewReceipt] = (),
    ) -> Appended:
        """Append all rows, or none: one statement, one transaction, durable when it returns.

        ``expected`` names the versions of streams that were read and not written. Raises
        :class:`VersionConflict`, :class:`ReceiptConflict`, or ``Unavailable``, after which it is
        unknown whether the rows are there.
        """
        parameters = {
            "namespace": namespace,
            "events": _json(rows),
            "expected": _json(
                [{"stream_id": s, "version": v} for s, v in (expected or {}).items()]
            ),
            "receipts": _json(receipts),
        }
        with connect.told_apart():
            try:
                appended = self._append_once(parameters)
            except (PoolTimeout, TooManyRequests):
                raise  # nothing was sent
            except connect.Unanswered:
                raise  # nor would it answer what became of it
            except psycopg.OperationalError:
                if not rows or self._held is not None:
                    raise
                # The append may have succeeded and only its acknowledgement been lost. A new
                # connection can tell; if the old one is still working, it cannot commit the
                # same sequence numbers as ours.
                self._pool.check()
                found = self._find(namespace, rows[-1])
                if found is not None:
                    return found
                try:
                    return self._append_once(parameters)
                except (VersionConflict, ReceiptConflict):
                    found = self._find(namespace, rows[-1])
                    if found is None:
                        raise
                    return found
        if self._held is not None:
            self._written.extend(rows)
        return appended

    def _append_once(self, parameters: Mapping[str, object]) -> Appended:
        try:
            with self._connection() as connection:
                cursor = connection.cursor(row_factory=class_row(Appended))
                row = cursor.execute(_SQL["append"], parameters, prepare=True).fetchone()
                assert row is not None
                return row
        except psycopg.Error as e:
            match e.sqlstate:
                case "HF001":
                    raise VersionConflict(orjson.loads(e.diag.message_detail or "[]")) from None
                case "HF002":
                    raise ReceiptConflict from None
                case "23505":  # the primary key saw a writer that the function's check did not
                    raise VersionConflict([]) from None
            raise

    def _find(self, namespace: str, row: NewRow) -> Appended | None:
        with self._connection() as connection:
            found = connection.execute(
                _SQL["written"],
                {
                    "namespace": namespace,
                    "stream_id": row["stream_id"],
                    "sequence_num": row["sequence_num"],
                    "event_id": row["event_id"],
                },
            ).fetchone()
        return None if found is None else Appended(head=found[0], written_at=found[1])

    @_asked_again
    def load(self, namespace: str, state_versions: Mapping[str, int]) -> list[Loaded]:
        """The newest snapshot and the later events of each stream, in order, in one query."""
        with self._connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row, binary=True)
            rows = cursor.execute(
                _SQL["load"],
                {
                    "namespace": namespace,
                    "streams": list(state_versions),
                    "state_versions": list(state_versions.values()),
                },
            ).fetchall()
        return [Loaded._make(row) for row in rows]

    @_asked_again
    def receipts(self, namespace: str, keys: Sequence[str]) -> list[Receipt]:
        """The stored replies for these idempotency keys."""
        with self._connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Receipt))
            return cursor.execute(
                _SQL["receipts"], {"namespace": namespace, "keys": list(keys)}
            ).fetchall()

    @_asked_again
    def forget_receipts(self, namespace: str) -> int:
        """Delete receipts that are older than a day; return how many."""
        with self._connection() as connection:
            parameters = {"namespace": namespace}
            row = connection.execute(_SQL["forget_receipts"], parameters).fetchone()
        return 0 if row is None else int(row[0])

    @_asked_again
    def snapshot_before(
        self, namespace: str, stream_id: str, state_version: int, to: int
    ) -> tuple[int, Json] | None:
        """The newest snapshot of a stream at or below sequence number ``to``."""
        with self._connection() as connection:
            return connection.execute(
                _SQL["snapshot_before"],
                {
                    "namespace": namespace,
                    "stream_id": stream_id,
                    "state_version": state_version,
                    "to": to,
                },
            ).fetchone()

    @_asked_again
    def insert_snapshots(self, namespace: str, snapshots: Sequence[Json]) -> None:
        """Store snapshots of aggregates at stored events; existing ones stay as they are."""
        with self._connection() as connection:
            connection.execute(
                _SQL["insert_snapshots"],
                {"namespace": namespace, "snapshots": _json(snapshots)},
            )

    def read_stream(
        self,
        namespace: str,
        stream_id: str,
        *,
        after: int = 0,
        upto: int = MAX_POSITION,
        limit: int | None = None,
        most: int | None = None,
    ) -> list[Recorded]:
        """A stream's events with ``after < sequence_num <= upto``.

        At most ``most`` bytes of JSON, but at least one event.
        """
        return self._read(
            "stream",
            most,
            namespace=namespace,
            stream_id=stream_id,
            after=after,
            upto=upto,
            limit=limit,
        )

    def page_of_log(
        self,
        namespace: str,
        *,
        after: int = 0,
        upto: int = MAX_POSITION,
        limit: int = MAX_PAGE,
        types: Sequence[str] = (),
    ) -> tuple[list[Recorded], bool]:
        """A namespace's events with ``after < position <= upto``, in commit order; are there more?

        At most 8 MiB of JSON.
        """
        rare = types and not HEARTBEATS.intersection(types)
        return self._page(
            "log_of_types" if rare else "log",
            limit,
            namespace=namespace,
            after=after,
            upto=upto,
            types=list(types) or None,
        )

    @_asked_again
    def version(self, namespace: str, stream_id: str) -> int:
        """The sequence number of a stream's newest event; 0 if the stream does not exist."""
        with self._connection() as connection:
            parameters = {"namespace": namespace, "stream_id": stream_id}
            row = connection.execute(_SQL["version"], parameters).fetchone()
        assert row is not None
        return int(row[0])

    def find_in_stream(
        self,
        namespace: str,
        stream_id: str,
        criteria: Criteria,
        limit: int,
        offset: int = 0,
        past: int | None = None,
    ) -> tuple[list[Recorded], bool]:
        """A page of a stream's events that match the criteria, and whether there are more.

        It has at most 8 MiB of JSON and starts after the event with sequence number ``past``.
        """
        return self._page(
            "find_in_stream_backwards" if criteria.newest_first else "find_in_stream",
            limit,
            namespace=namespace,
            stream_id=stream_id,
            offset=offset,
            past=past,
            **criteria.parameters(),
        )

    @_asked_again
    def count_in_stream(self, namespace: str, stream_id: str, criteria: Criteria) -> int:
        """The number of a stream's events that match the criteria."""
        if criteria.is_empty:
            return self.version(namespace, stream_id)  # sequence numbers have no gaps
        parameters = {"namespace": namespace, "stream_id": stream_id, **criteria.parameters()}
        with self._connection() as connection:
            row = connection.execute(_SQL["count_in_stream"], parameters).fetchone()
        assert row is not None
        return int(row[0])

    @_asked_again
    def _read(self, /, query: str, most: int | None, **parameters: object) -> list[Recorded]:
        with self._connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row, binary=True)
            if most is None:
                rows = cursor.execute(_SQL[query], parameters).fetchall()
                return [Recorded._make(row) for row in rows]
            # The rest of the query is cancelled once the page is full.
            coming = cast(Rows, cursor.stream(_SQL[query], parameters, size=AT_ONCE))
            with closing(coming):
                events, _ = _upto(most, map(Recorded._make, coming))
                return events

    @_asked_again
    def _page(self, /, query: str, limit: int, **parameters: object) -> tuple[list[Recorded], bool]:
        with self._connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row, binary=True)
            given = {**parameters, "limit": limit + 1}
            coming = cast(Rows, cursor.stream(_SQL[query], given, size=AT_ONCE))
            with closing(coming):
                events, is_cut = _upto(PAGE_BYTES, map(Recorded._make, coming))
        return events[:limit], is_cut or len(events) > limit

    def begin_job(self, job: str, period: timedelta) -> bool:
        """Try to start a periodic job; True if it is due and no other process runs it."""
        with connect.told_apart(), self._connection() as connection:
            parameters = {"job": job, "period": period}
            return connection.execute(_SQL["begin_job"], parameters).rowcount == 1

    def end_job(self, job: str) -> None:
        """Record that a job's run has ended."""
        with connect.told_apart(), self._connection() as connection:
            connection.execute(_SQL["end_job"], {"job": job})

    @_asked_again
    def head(self, namespace: str) -> int:
        """The position of a namespace's last event; 0 if it has none."""
        with self._connection() as connection:
            row = connection.execute(_SQL["head"], {"namespace": namespace}).fetchone()
        return 0 if row is None else int(row[0])

    @_asked_again
    def touch_serving(self, tolerance_seconds: float) -> tuple[datetime, Serving]:
        """Record that this process is reachable now. The time, and since when the service is."""
        parameters = {"tolerance_seconds": tolerance_seconds}
        with self._connection() as connection:
            row = connection.execute(_SQL["touch_serving"], parameters, prepare=True).fetchone()
        assert row is not None
        return row[0], Serving(row[1], row[2])

    @_asked_again
    def serving(self) -> tuple[datetime, Serving]:
        """The database's time, and since when the service has been reachable."""
        with self._connection() as connection:
            row = connection.execute(_SQL["serving"]).fetchone()
        assert row is not None
        return row[0], Serving(row[1], row[2])

    @_asked_again
    def clock(self) -> datetime:
        """The database's time: the only clock that decides anything."""
        with self._connection() as connection:
            row = connection.execute(_SQL["clock"]).fetchone()
        assert row is not None
        now: datetime = row[0]
        return now


def _upto(most: int, coming: Iterable[Recorded]) -> tuple[list[Recorded], bool]:
    """The first events that fit into ``most`` bytes, at least one, and whether others did not."""
    events: list[Recorded] = []
    for event in coming:
        told = (event.event_data, event.metadata, event.stream_id, event.stream_id)
        most -= len(orjson.dumps(told)) + _AROUND
        if most < 0 and events:
            return events, True
        events.append(event)
    return events, False


def _json(value: Sequence[object]) -> str | None:
    return orjson.dumps(value).decode() if value else None
