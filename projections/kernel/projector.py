"""Keeps the read models up to date: one batch, its rows and its positions in one transaction.

Every process runs one for its own definitions (:mod:`~projections.kernel.definition`); the
positions' row locks let one of them work on a namespace at a time, so a crash repeats nothing and
two that both believe to be in charge do no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import psycopg
from psycopg.rows import tuple_row

from application.eventstore import connect, sql
from application.eventstore.mapper import Recorded
from application.eventstore.outage import Outage
from application.eventstore.subscription import LogListener
from projections.kernel.definition import Definition, folded, search_path
from projections.kernel.progress import Progress
from projections.kernel.readmodel import Failure, Projection

log = logging.getLogger("holdfast.projector")

# A batch: so many events, and so many bytes of them. Other namespaces wait for it.
BATCH = 5_000
BATCH_BYTES = 8 * 1024 * 1024
RETRY_SECONDS = 0.5
PAUSE_SECONDS = 0.02
# How often a process says which definitions it has, in seconds.
NOTE_SECONDS = 60.0

_SQL = sql.load("projections.kernel", "projector.sql")


class BatchFailure(Exception):
    """The database refused a batch's rows; smaller batches will show which event causes it."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a batch of {size} events was refused")
        self.size = size


class Folder:
    """Folds batches of the log into read models, over one connection.

    Each has a position of its own. Those that are behind the others are folded first, together with
    all that are as far behind.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        models: Mapping[str, Projection],
        batch: int = BATCH,
        *,
        is_patient: bool = False,
    ) -> None:
        """``models`` by their place. ``is_patient``: another projector's batch is waited for."""
        self._connection = connection
        self._models = models
        self._places = list(models)
        self._batch = batch
        self._lock = _SQL["lock_all" if is_patient else "lock"]
        # Whether it has set an event aside since somebody looked.
        self.has_set_aside = False

    @classmethod
    def connect(
        cls, info: str, models: Mapping[str, Projection], *, is_patient: bool = False
    ) -> Folder:
        """A folder on a connection of its own."""
        connection = connect.Connection.connect(info, autocommit=True)
        connect.configure(connection)
        return cls(connection, models, is_patient=is_patient)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def behind(self) -> list[tuple[str, int, int]]:
        """Namespaces in which a model is not at the head: name, least position, head."""
        parameters = {"places": self._places}
        return self._connection.execute(_SQL["behind"], parameters, prepare=True).fetchall()

    def note_use(self, places: Sequence[str]) -> None:
        """Record that these definitions are in use, so that they are not dropped as unused."""
        self._connection.execute(_SQL["used"], {"places": list(places)}, prepare=True)

    def dead_letters(self) -> int:
        """How many events were set aside, in all namespaces."""
        parameters = {"places": self._places}
        row = self._connection.execute(_SQL["count_set_aside"], parameters).fetchone()
        return 0 if row is None else int(row[0])

    def fold(self, namespace: str) -> int | None:
        """Fold the next batch; the position up to which all is folded then.

        None if another projector has the namespace.
        """
        limit, is_careful = self._batch, False
        while True:
            try:
                return self._fold(namespace, limit, is_careful)
            except BatchFailure as failure:
                limit, is_careful = max(1, failure.size // 2), failure.size == 1

    def _fold(self, namespace: str, limit: int, is_careful: bool) -> int | None:
        with self._connection.transaction():
            positions = self._positions(namespace)
            if not positions:
                return None
            least = min(positions.values())
            events = self._events(namespace, least, limit)
            if not events:
                return least
            for place, position in positions.items():
                new = events if position == least else [e for e in events if e.position > position]
                if new:
                    self._project(place, namespace, new, is_careful)
            self._advance(namespace, events[-1].position, list(positions))
        return events[-1].position

    def _project(
        self, place: str, namespace: str, events: Sequence[Recorded], is_careful: bool
    ) -> None:
        """Fold into one model. ``is_careful``: if the database refuses it, that is its own loss."""
        model = self._models[place]
        try:
            with self._connection.transaction() if is_careful else nullcontext():
                failures = model.project(self._connection, namespace, events)
        except (psycopg.DataError, psycopg.IntegrityError) as e:
            if not is_careful:
                raise BatchFailure(len(events)) from e
            failures = [Failure(events[0], model.name, repr(e))]
        for failure in failures:
            self._set_aside(namespace, place, failure)
            self.has_set_aside = True

    def _positions(self, namespace: str) -> dict[str, int]:
        """The positions of the models that no other projector is at work on, locked."""
        parameters = {"namespace": namespace, "places": self._places}
        rows = self._connection.execute(self._lock, parameters, prepare=True).fetchall()
        if len(rows) < len(self._places):
            self._connection.execute(_SQL["begin"], parameters)
            rows = self._connection.execute(self._lock, parameters).fetchall()
        return dict(rows)

    def _events(self, namespace: str, after: int, limit: int) -> list[Recorded]:
        cursor = self._connection.cursor(row_factory=tuple_row, binary=True)
        rows = cursor.execute(
            _SQL["events"],
            {"namespace": namespace, "after": after, "limit": limit, "room": BATCH_BYTES},
            prepare=True,
        ).fetchall()
        return [Recorded._make(row) for row in rows]

    def _advance(self, namespace: str, position: int, places: Sequence[str]) -> None:
        parameters = {"namespace": namespace, "position": position, "places": places}
        self._connection.execute(_SQL["advance"], parameters, prepare=True)

    def _set_aside(self, namespace: str, place: str, failure: Failure) -> None:
        about: dict[str, object] = {
            "namespace": namespace,
            "position": failure.event.position,
            "read_model": failure.read_model,
            "error": failure.error,
        }
        log.error("event_set_aside", extra=about)
        self._connection.execute(_SQL["set_aside"], {**about, "place": place})


class Projector:
    """The thread that keeps read models up to date; it goes on after a database outage."""

    def __init__(
        self,
        url: str,
        defined: Sequence[Definition],
        progress: Progress,
        *,
        late: bool = False,
    ) -> None:
        """``late``: those whose answers may come late, instead of the others."""
        self._all = [each.place for each in defined]
        self._info = connect.conninfo(url, search_path=search_path(self._all))
        self._models = folded(defined, late=late)
        self._progress = progress
        self._listener = LogListener(url)
        self._outage = Outage(log, "projector_waits_for_database")
        self._stopping = threading.Event()
        # How many events were set aside, as of a minute ago at most.
        self.dead_letters = 0
        name = "holdfast-late-projector" if late else "holdfast-projector"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start projecting, if there is anything to project."""
        if self._models:
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
        folder = Folder.connect(self._info, self._models)
        self._outage.is_over()
        noted = -NOTE_SECONDS
        try:
            while not self._stopping.is_set():
                if time.monotonic() - noted >= NOTE_SECONDS or folder.has_set_aside:
                    folder.note_use(self._all)
                    self.dead_letters = folder.dead_letters()
                    folder.has_set_aside = False
                    noted = time.monotonic()
                match self._catch_up(folder):
                    case 0:
                        self._listener.wait()
                    case few if few < BATCH:
                        # A stream of small appends is folded in fewer batches, unless one waits.
                        self._progress.wanted.wait(PAUSE_SECONDS)
        finally:
            folder.close()

    def _catch_up(self, folder: Folder) -> int:
        """Fold one batch of each namespace that is behind; return the size of the largest."""
        most = 0
        self._progress.wanted.clear()
        for namespace, projected, _head in folder.behind():
            position = folder.fold(namespace)
            if position is not None and position > projected:
                most = max(most, position - projected)
                self._progress.advance(namespace, position)
        return most
