"""Keeps the read models up to date: one batch, its rows and its position in one transaction.

Every process runs one; the position's row lock lets one of them work on a namespace at a time, so
a crash repeats nothing and two that both believe to be in charge do no harm.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import psycopg
from psycopg.rows import tuple_row

from application.eventstore import connect, sql
from application.eventstore.mapper import Recorded
from application.eventstore.outage import Outage
from application.eventstore.subscription import LogListener
from projections.progress import Progress
from projections.readmodel import Failure, ReadModel
from projections.reads import LIVE_SCHEMA

log = logging.getLogger("holdfast.projector")

# A batch: so many events, and so many bytes of them. Other namespaces wait for it.
BATCH = 5_000
BATCH_BYTES = 8 * 1024 * 1024
RETRY_SECONDS = 0.5
PAUSE_SECONDS = 0.02

_SQL = sql.load("projections", "schema.sql")


class BatchFailure(Exception):
    """The database refused a batch's rows; which event is to blame shows in smaller batches."""

    def __init__(self, read_model: str, error: psycopg.Error, events: Sequence[Recorded]) -> None:
        super().__init__(f"{read_model}: {error}")
        self.read_model = read_model
        self.error = error
        self.events = events


class Folder:
    """Folds batches of the log into the read models of one schema, over one connection."""

    def __init__(
        self,
        connection: psycopg.Connection,
        read_models: Sequence[ReadModel],
        batch: int = BATCH,
    ) -> None:
        self._connection = connection
        self._read_models = read_models
        self._batch = batch

    @classmethod
    def connect(cls, info: str, read_models: Sequence[ReadModel]) -> Folder:
        """A folder on a connection of its own."""
        connection = connect.Connection.connect(info, autocommit=True)
        connect.configure(connection)
        return cls(connection, read_models)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def behind(self) -> list[tuple[str, int, int]]:
        """Namespaces that are not at their head: name, position, head."""
        return self._connection.execute(_SQL["behind"], prepare=True).fetchall()

    def fold(self, namespace: str) -> int | None:
        """Fold the next batch; the new position, or None if another projector has the namespace."""
        limit = self._batch
        while True:
            try:
                return self._fold(namespace, limit)
            except BatchFailure as failure:
                if len(failure.events) > 1:
                    limit = len(failure.events) // 2
                else:
                    self._pass_over(namespace, failure)

    def _fold(self, namespace: str, limit: int) -> int | None:
        with self._connection.transaction():
            position = self._lock(namespace)
            if position is None:
                return None
            events = self._events(namespace, position, limit)
            if not events:
                return position
            for model in self._read_models:
                try:
                    failures = model.project(self._connection, namespace, events)
                except (psycopg.DataError, psycopg.IntegrityError) as e:
                    raise BatchFailure(model.name, e, events) from e
                for failure in failures:
                    self._set_aside(namespace, failure)
            self._advance(namespace, events[-1].position)
        return events[-1].position

    def _pass_over(self, namespace: str, failure: BatchFailure) -> None:
        """Set the event aside whose rows the database refuses, in every read model."""
        [event] = failure.events
        with self._connection.transaction():
            position = self._lock(namespace)
            if position is None or position >= event.position:
                return  # another projector met it too, and was faster
            error = f"{failure.read_model}: {failure.error!r}"
            for model in self._read_models:
                self._set_aside(namespace, Failure(event, model.name, error))
            self._advance(namespace, event.position)

    def _lock(self, namespace: str) -> int | None:
        parameters = {"namespace": namespace}
        row = self._connection.execute(_SQL["lock"], parameters, prepare=True).fetchone()
        if row is None:
            self._connection.execute(_SQL["begin"], parameters)
            row = self._connection.execute(_SQL["lock"], parameters).fetchone()
        return None if row is None else int(row[0])

    def _events(self, namespace: str, after: int, limit: int) -> list[Recorded]:
        cursor = self._connection.cursor(row_factory=tuple_row, binary=True)
        rows = cursor.execute(
            _SQL["events"],
            {"namespace": namespace, "after": after, "limit": limit, "room": BATCH_BYTES},
            prepare=True,
        ).fetchall()
        return [Recorded._make(row) for row in rows]

    def _advance(self, namespace: str, position: int) -> None:
        parameters = {"namespace": namespace, "position": position}
        self._connection.execute(_SQL["advance"], parameters, prepare=True)

    def _set_aside(self, namespace: str, failure: Failure) -> None:
        about: dict[str, object] = {
            "namespace": namespace,
            "position": failure.event.position,
            "read_model": failure.read_model,
            "error": failure.error,
        }
        log.error("event_set_aside", extra=about)
        self._connection.execute(_SQL["set_aside"], about)


class Projector:
    """The thread that keeps the live schema up to date. It outlasts the database's absences."""

    def __init__(self, url: str, read_models: Sequence[ReadModel], progress: Progress) -> None:
        self._info = connect.conninfo(url, search_path=f"{LIVE_SCHEMA},public")
        self._read_models = read_models
        self._progress = progress
        self._listener = LogListener(url)
        self._outage = Outage(log, "projector_waits_for_database")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-projector", daemon=True)

    def start(self) -> None:
        """Start projecting."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand, then end."""
        self._stopping.set()
        self._listener.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._project()
            except connect.LOST as e:
                self._outage.goes_on(str(e).strip())
            except Exception:
                # It must not end: without it every read would be old for ever.
                log.exception("projector_failed")
            self._stopping.wait(RETRY_SECONDS)

    def _project(self) -> None:
        folder = Folder.connect(self._info, self._read_models)
        self._outage.is_over()
        try:
            while not self._stopping.is_set():
                match self._catch_up(folder):
                    case 0:
                        self._listener.wait()
                    case few if few < BATCH:
                        # A stream of small appends is folded in fewer batches, unless one waits.
                        self._progress.wanted.wait(PAUSE_SECONDS)
        finally:
            folder.close()

    def _catch_up(self, folder: Folder) -> int:
        """One batch of each namespace that is behind; how many events the largest one had."""
        most = 0
        self._progress.wanted.clear()
        for namespace, projected, _head in folder.behind():
            position = folder.fold(namespace)
            if position is not None and position > projected:
                most = max(most, position - projected)
                self._progress.advance(namespace, position)
        return most
