"""What tables of read models can be, where they may look, what becomes of what they cannot fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from application.eventstore import connect
from application.eventstore.mapper import Recorded
from application.instances import BeatInstance, RegisterInstance
from application.sessions import BeatSession, CreateSession, UpdateSession
from projections import DEFINITIONS, READ_MODELS, dead_letters, schema
from projections import sessions as session_reads
from projections.kernel.definition import Definition, definitions, folded, search_path
from projections.kernel.projector import Folder
from projections.kernel.readmodel import Find, Key, Projection, Row, Table, there
from projections.kernel.reads import Page
from tests.integration.test_projector import a_varied_story
from tests.support.given import new_session
from tests.support.postgres import as_owner, ask, ask_one, change
from tests.support.waiting import eventually
from tests.support.wiring import Service, service


@pytest.fixture
def unprojected(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


class Links(Table):
    """Beats by project, of whichever kind of stream; an instance's project is known from before."""

    name = "links"
    categories = ("session", "instance")
    key = ("kind", "id")
    columns = ("namespace", "kind", "id", "project", "beats")
    linking = frozenset({"instance_registered", "session_created"})

    def __init__(self) -> None:
        super().__init__()
        self.folds = {
            "session_created": self._began,
            "instance_registered": self._began,
            "session_heartbeat": self._beaten,
            "instance_heartbeat": self._beaten,
        }

    @classmethod
    def sql(cls) -> dict[str, str]:
        return {
            "create": "CREATE TABLE links (namespace text, kind text, id text, project text,"
            " beats int, PRIMARY KEY (namespace, kind, id))"
        }

    def keys(self, event: Recorded, find: Find) -> Iterable[Key]:
        """The stream's own row, which says its project; and its project's, which counts."""
        link = ("stream", event.stream_id)
        if event.event_type in self.linking:
            return [link, ("project", project_of(event))]
        found = find(link)
        assert found is not None, "it began before"
        return [("project", found["project"])]

    @staticmethod
    def _began(row: Row | None, event: Recorded) -> Row:
        return row or {"project": project_of(event), "beats": 0}

    @staticmethod
    def _beaten(row: Row | None, event: Recorded) -> Row:
        return there(row) | {"beats": there(row)["beats"] + 1}


def project_of(event: Recorded) -> str:
    """The project that a stream begins with."""
    name: str = event.event_data.get("project_id") or event.event_data["project"]
    return name


@contextmanager
def folder(
    url: str, defined: Sequence[Definition], batch: int = 5_000, late: bool = False
) -> Iterator[tuple[Folder, psycopg.Connection]]:
    """A folder that sees the tables of these definitions, and no others."""
    info = connect.conninfo(url, search_path=search_path(each.place for each in defined))
    with psycopg.connect(info, autocommit=True) as connection:
        connect.configure(connection)
        yield Folder(connection, folded(defined, late=late), batch), connection


def fold_all(folder: Folder) -> None:
    """Fold up to the heads."""
    while behind := folder.behind():
        for namespace, _, _ in behind:
            folder.fold(namespace)


@pytest.mark.parametrize("batch", [1, 3, 5_000])
def test_a_table_of_two_key_columns_two_kinds_of_streams_and_keys_known_from_before(
    unprojected: Service, batch: int
) -> None:
    """However the events are batched, the last ones find what the first ones have left."""
    here = unprojected
    for number in range(3):
        session = here.do(CreateSession(project_id=f"p{number}", machine_id="m"))["session_id"]
        agent = here.do(RegisterInstance(project=f"p{number}", instance_type="PS"))["instance_id"]
        for _ in range(number + 1):
            here.do(BeatSession(session_id=session))
            here.do(BeatInstance(instance_id=agent))
    defined = definitions([Links()])
    schema.install(here.url, defined=[*DEFINITIONS, *defined])
    change(here.url, "DELETE FROM projections.positions WHERE place = %s", defined[0].place)

    with folder(here.url, defined, batch) as (it, connection):
        connection.execute("DELETE FROM links")
        fold_all(it)
        found = connection.execute(
            "SELECT id, beats FROM links WHERE kind = 'project' ORDER BY id"
        ).fetchall()

    assert found == [("p0", 2), ("p1", 4), ("p2", 6)]
    assert ask(here.url, "SELECT error FROM projections.dead_letters") == []


@pytest.mark.parametrize(
    "model", [m for m in READ_MODELS if isinstance(m, Projection)], ids=lambda model: model.name
)
def test_a_read_model_is_folded_where_there_is_no_other(
    unprojected: Service, model: Projection
) -> None:
    """Its folds look at no other's tables, whose position is another."""
    a_varied_story(unprojected, machines=1)
    [place] = folded([d for d in DEFINITIONS if d.model is model])
    change(unprojected.url, "DELETE FROM projections.positions")
    alone = [each for each in DEFINITIONS if each.model is model]
    with folder(unprojected.url, alone) as (it, _):
        fold_all(it)
    reached = ask_one(
        unprojected.url, "SELECT position FROM projections.positions WHERE place = %s", place
    )
    assert reached == ask_one(unprojected.url, "SELECT max(position) FROM event_store")
    assert ask(unprojected.url, "SELECT error FROM projections.dead_letters") == []
    with as_owner(unprojected.url) as owner:
        assert owner.execute(f"SELECT FROM {model.name}".encode()).fetchone() is not None


def test_a_read_model_that_is_behind_the_others_catches_up(unprojected: Service) -> None:
    """Each has a position of its own; what one has already is not folded into it again."""
    here = unprojected
    session_id = here.open_session()
    here.do(UpdateSession(session_id=session_id, metadata={"n": 1}))
    with folder(here.url, DEFINITIONS) as (it, _):
        fold_all(it)
    sessions = next(place for place, m in folded(DEFINITIONS).items() if m.name == "sessions")
    before = ask(here.url, "SELECT xmin::text FROM machines")
    change(here.url, "UPDATE projections.positions SET position = 0 WHERE place = %s", sessions)
    change(here.url, "DELETE FROM sessions")

    with folder(here.url, DEFINITIONS) as (it, _):
        fold_all(it)

    assert ask_one(here.url, "SELECT metadata FROM sessions") == {"n": 1}
    assert ask(here.url, "SELECT xmin::text FROM machines") == before


class Late(Projection):
    """Counts events, and nobody minds when."""

    name = "late"
    is_late = True

    @classmethod
    def sql(cls) -> dict[str, str]:
        return {"create": "CREATE TABLE late (namespace text, position bigint)"}

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> list[Any]:
        connection.cursor().executemany(
            "INSERT INTO late VALUES (%s, %s)", [(namespace, e.position) for e in events]
        )
        return []


def test_a_late_read_model_keeps_nobody_waiting(database: str) -> None:
    """Given a new one, then it is made at the start, and built by a projector of its own."""
    defined = definitions([*READ_MODELS, Late()])
    with service(database) as here:
        session_id = here.open_session()
        assert schema.install(database, defined=defined)
        [place] = folded(defined, late=True)

        def counted() -> int:
            with as_owner(database) as owner:
                return len(owner.execute(f"SELECT FROM {place}.late".encode()).fetchall())

        assert counted() == 0
        # It does not count for readers, who wait for the others alone.
        assert here.ask(session_reads.get, session_id)["status"] == "active"

        here.project_late(defined)

        head = ask_one(database, "SELECT max(position) FROM event_store")
        eventually(lambda: counted() == head)


def test_what_was_set_aside_is_listed_and_retried(unprojected: Service) -> None:
    """Given an event that could not be folded, when the cause has gone, then a rebuild has it."""
    here = unprojected
    change(here.url, "ALTER TABLE sessions ADD CHECK (session_id <> 'second')")
    for key in ("first", "second", "third"):
        here.given(new_session(key))
    with folder(here.url, DEFINITIONS) as (it, connection):
        fold_all(it)
        assert it.has_set_aside
        assert it.dead_letters() == 1
        places = list(folded(DEFINITIONS))
        assert dead_letters.affected(connection, places) == {"sessions": 1}
    listed = here.ask(dead_letters.listed, Page(50, 0))
    [letter] = listed["dead_letters"]
    assert (letter["read_model"], letter["stream_id"]) == ("sessions", "session-second")
    assert "check constraint" in letter["error"]
    assert listed["total_count"] == 1

    schema.rebuild(here.url, only=["sessions"])

    assert here.ask(dead_letters.listed, Page(50, 0))["total_count"] == 0
    assert ask(here.url, "SELECT session_id FROM sessions ORDER BY 1") == [
        ("first",),
        ("second",),
        ("third",),
    ]


def test_one_read_model_is_rebuilt_with_those_that_show_it(database: str) -> None:
    """Given one that is rebuilt, then the others' rows stay, and views of it go on."""
    with service(database) as here:
        a_varied_story(here, machines=1)
        with folder(database, DEFINITIONS) as (it, _):
            eventually(lambda: not it.behind())
        before = ask(database, "SELECT xmin::text, instance_id FROM instances ORDER BY 2")
        change(database, "DELETE FROM tasks")

        schema.rebuild(database, only=["tasks"])

        assert ask_one(database, "SELECT count(*) > 0 FROM tasks")
        assert ask_one(database, "SELECT count(*) > 0 FROM recovery_state")
        after = ask(database, "SELECT xmin::text, instance_id FROM instances ORDER BY 2")
        assert after == before
        with pytest.raises(KeyError, match="nothing"):
            schema.rebuild(database, only=["nothing"])
