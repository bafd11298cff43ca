from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from application.claims import ClaimItem, ReleaseClaim
from application.eventstore import connect, subscription
from application.eventstore.mapper import NewRow, Origin, Recorded
from application.instances import RegisterInstance
from application.machines import BeatMachine, RegisterMachine
from application.sessions import (
    BeatSession,
    CreateSession,
    DeleteSession,
    MarkFailed,
    RecoverSession,
    UpdateSession,
)
from application.tasks import CreateTask, DeleteTask, UpdateTask
from application.work_items import CompleteItem, ListItem
from domain.errors import HoldfastError, SessionNotFound
from domain.instances.instance import Instance
from projections import DEFINITIONS, READ_MODELS, schema
from projections import machines as machine_reads
from projections import sessions as session_reads
from projections import tasks as task_reads
from projections.kernel.definition import definitions, folded, search_path
from projections.kernel.projector import Folder
from projections.kernel.readmodel import Failure, Projection, ReadModel, Table
from projections.kernel.reads import Page
from tests.support.given import START, THRESHOLD_MS, at, new_session
from tests.support.postgres import (
    as_owner,
    ask,
    ask_one,
    change,
    terminate_listeners,
)
from tests.support.waiting import eventually
from tests.support.wiring import Service, service

ORIGIN = Origin("11111111-1111-4111-8111-111111111111", "k", "test")
TABLES = {model.name: model.key[0] for model in READ_MODELS if isinstance(model, Table)}


@pytest.fixture
def here(database: str) -> Iterator[Service]:
    with service(database) as running:
        yield running


@pytest.fixture
def unprojected(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


def a_varied_story(at: Service, machines: int = 3) -> None:
    """Something of everything, ending with sessions in all states."""
    for number in range(machines):
        machine = f"m{number}"
        at.do(RegisterMachine(machine_id=machine, hostname="tower", docker_slots=[1, 2]))
        failing = at.open_session(machine, docker_slot=1, metadata={"goal": "moon"})
        names = [
            at.do(CreateTask(session_id=failing, project_id="apollo", task_name=name))["task_id"]
            for name in ("first", "second", "third", "fourth", "gone")
        ]
        for task, status in zip(names, ("completed", "in_progress", "failed"), strict=False):
            why = "broken" if status == "failed" else None
            at.do(UpdateTask(task_id=task, session_id=failing, status=status, error_message=why))
        at.do(DeleteTask(task_id=names[-1], session_id=failing))
        at.do(BeatSession(session_id=failing, metadata={"step": number}))
        at.do(MarkFailed(session_id=failing, error_message="disk"))
        at.do(RecoverSession(session_id=failing, new_machine_id=f"spare{number}"))
        living = at.open_session(machine)
        for _ in range(3):
            at.do(BeatSession(session_id=living))
        at.do(UpdateSession(session_id=living, status="paused"))
        deleted = at.open_session(f"brief{number}")
        at.do(CreateTask(session_id=deleted, project_id="apollo", task_name="never"))
        at.do(DeleteSession(session_id=deleted))
        at.do(BeatMachine(machine_id=machine, metadata={"load": 0.5}))
        some_work(at, number)
    # All that one batch decides happens at the same moment.
    hasty = new_session("hasty")
    for _ in range(3):
        hasty.beat(START)
    at.given(hasty)


def restarted_instance() -> Instance:
    """One that fell silent, was started again, and beat until it had left its crash loop."""
    instance = Instance(id=Instance.stream_id("odin-PS-8f4a2b"))
    policy = {"policy": "always", "max_restarts": 3, "backoff_seconds": 5}
    instance.register(
        at(0),
        project="odin",
        project_name="odin",
        instance_type="PS",
        scope="project",
        restart_policy=policy,
    )
    instance.beat(at(30))
    instance.note_stale(at(300), 120)
    for seconds in (330, 360, 930, 960):
        instance.beat(at(seconds))
    return instance


def some_work(at: Service, number: int) -> None:
    """Work items in all states: waiting, held, given back, moved, done."""
    worker = at.open_session(f"work{number}", hostname="tower")
    agent = at.do(RegisterInstance(project="apollo", instance_type="PS"))["instance_id"]
    names = [f"{name}-{number}" for name in ("waiting", "held", "free", "moved", "done")]
    waiting, held, free, moved, done = names
    at.do(ListItem(item_id=waiting, title="Later", depends_on=[done, held], priority=number))
    at.do(ClaimItem(item_id=held, instance_id=agent, tty="pts/1"))
    for item in (free, moved, done):
        at.do(ClaimItem(item_id=item, session_id=worker))
    at.do(ReleaseClaim(item_id=free, session_id=worker))
    at.do(CompleteItem(item_id=done, session_id=worker))
    at.do(ListItem(item_id=moved, track="flight"))
    at.do(UpdateSession(session_id=worker, status="stalled"))
    at.do(RecoverSession(session_id=worker, new_machine_id=f"elsewhere{number}"))


def rows(url: str, table: str) -> dict[tuple[str, str], dict[str, Any]]:
    """All rows of a live read model, by their key."""
    with as_owner(url) as connection:
        query = SQL("SELECT namespace, to_jsonb(t) FROM {} AS t").format(Identifier(table))
        key = TABLES[table]
        return {(ns, row[key]): row for ns, row in connection.execute(query).fetchall()}


def everything(url: str) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    return {table: rows(url, table) for table in TABLES}


def caught_up(url: str) -> bool:
    with as_owner(url) as connection:
        return not Folder(connection, folded(DEFINITIONS)).behind()


def failures(url: str) -> list[tuple[Any, ...]]:
    return ask(
        url,
        "SELECT namespace, position, read_model FROM projections.dead_letters ORDER BY 1, 2",
    )


# Folding


def test_what_is_read_is_what_was_written(here: Service) -> None:
    a_varied_story(here)
    now = here.store.clock()

    for reply in here.ask(session_reads.listed, Page(50, 0))["sessions"]:
        session = here.session(reply["session_id"])
        assert reply["status"] == session.status_at(now, THRESHOLD_MS)
        assert reply["last_heartbeat"] == session.last_heartbeat
        assert reply["updated_at"] == session.updated_at
        assert reply["metadata"] == session.metadata
        tasks = here.ask(task_reads.listed, Page(50, 0), session_id=session.key)["tasks"]
        assert {t["task_id"]: t["status"] for t in tasks} == {
            t.task_id: t.status for t in session.tasks.values()
        }
    assert here.ask(machine_reads.get, "m1")["metadata"] == {"load": 0.5}


@pytest.mark.parametrize("batch", [1, 2, 7, 5_000])
def test_the_rows_are_the_same_however_the_events_are_batched(
    unprojected: Service, batch: int
) -> None:
    """One event at a time is the definition; larger batches are a shortcut."""
    a_varied_story(unprojected)
    url = unprojected.url

    def built(size: int) -> dict[str, Any]:
        change(url, "DELETE FROM projections.positions")
        with as_owner(url) as connection:
            for table in TABLES:
                connection.execute(SQL("DELETE FROM {}").format(Identifier(table)))
        with folder(url, batch=size) as it:
            while it.behind():
                it.fold("default")
        return everything(url)

    assert built(batch) == built(1)
    assert failures(url) == []


@pytest.mark.parametrize("batch", [1, 2, 5_000])
def test_a_silent_beat_of_an_instance_changes_all_that_it_changes_in_the_aggregate(
    unprojected: Service, batch: int
) -> None:
    """Three columns of most rows; more of one that was stale, restarted or in a crash loop."""
    events = restarted_instance().collect_events()
    alike = ("status", "restarts", "crash_looping", "last_heartbeat", "alive_since", "updated_at")
    instance = Instance(id=events[0].originator_id)
    with folder(unprojected.url, batch=batch) as it:
        for start in range(0, len(events), batch):
            some = events[start : start + batch]
            unprojected.store.append("default", unprojected.mapper.rows(some, ORIGIN))
            it.fold("default")
            for event in some:
                instance.mutate(event)

            [row] = ask(
                unprojected.url,
                "SELECT status, restarts, crash_looping, last_heartbeat, alive_since, updated_at"
                " FROM instances",
            )
            assert row == tuple(getattr(instance, name) for name in alike)

    assert (instance.restarts, instance.alive_since) == (0, at(330))
    assert failures(unprojected.url) == []


def test_a_deleted_session_is_gone_with_its_tasks(here: Service) -> None:
    session_id = here.open_session()
    task = here.do(CreateTask(session_id=session_id, project_id="apollo", task_name="compile"))
    here.do(DeleteSession(session_id=session_id))

    with pytest.raises(SessionNotFound):
        here.ask(session_reads.get, session_id)
    with pytest.raises(HoldfastError):
        here.ask(task_reads.get, task["task_id"])
    assert here.ask(session_reads.health)["total_sessions"] == 0


def test_a_client_reads_what_it_wrote_every_time(here: Service) -> None:
    """Spec 9: a read waits until the read models have reached the head."""
    session_id = here.open_session()

    for number in range(200):
        here.do(UpdateSession(session_id=session_id, metadata={"n": number}))
        assert here.ask(session_reads.get, session_id)["metadata"] == {"n": number}


def test_a_client_reads_what_another_process_wrote_every_time(here: Service) -> None:
    with service(here.url, projecting=False) as elsewhere:
        session_id = elsewhere.open_session()
        for number in range(50):
            elsewhere.do(UpdateSession(session_id=session_id, metadata={"n": number}))
            assert here.ask(session_reads.get, session_id)["metadata"] == {"n": number}


def test_without_a_projector_a_read_answers_with_what_there_is(unprojected: Service) -> None:
    unprojected.open_session()

    assert unprojected.ask(session_reads.health)["total_sessions"] == 0


def test_namespaces_do_not_meet_in_the_read_models(here: Service) -> None:
    red = here.do(CreateSession(project_id="apollo", machine_id="m1"), namespace="red")
    here.open_session()

    with pytest.raises(SessionNotFound):
        here.ask(session_reads.get, red["session_id"])
    assert here.ask(session_reads.health)["total_sessions"] == 1
    assert here.ask(machine_reads.get, "m1")["active_sessions"] != [red["session_id"]]


# Waking up


def test_a_missed_notification_is_made_up_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "CHANNEL", "where_nobody_calls")
    with service(database) as deaf:
        session_id = deaf.open_session()
        eventually(lambda: caught_up(database), "catching up by looking")

        deaf.do(BeatSession(session_id=session_id, metadata={"heard": False}))

        eventually(lambda: caught_up(database), "catching up by looking")
        assert deaf.ask(session_reads.get, session_id)["metadata"] == {"heard": False}


def test_the_projector_outlasts_the_end_of_its_connections(here: Service) -> None:
    session_id = here.open_session()
    eventually(lambda: caught_up(here.url))
    assert eventually(lambda: terminate_listeners(here.url))
    change(
        here.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
        " current_database() AND application_name = 'holdfast'",
    )

    def beaten() -> bool:
        try:
            return here.do(BeatSession(session_id=session_id)).status == 200
        except HoldfastError:
            return False

    eventually(beaten)
    eventually(lambda: caught_up(here.url), "catching up")


# Once, and only once


class Counter(Projection):
    """Counts events, which shows at once when one is folded twice or never."""

    name = "counter"

    def __init__(self, before_the_end: Callable[[psycopg.Connection], None] | None = None) -> None:
        self.before_the_end = before_the_end

    @classmethod
    def sql(cls) -> dict[str, str]:
        return {"create": "CREATE TABLE counter (namespace text, position bigint)"}

    @staticmethod
    def create(url: str) -> None:
        schema.install(url, defined=definitions([Counter()]))

    @staticmethod
    def counted(url: str) -> list[int]:
        with folder(url, [Counter()]) as it:
            found = it._connection.execute("SELECT position FROM counter ORDER BY position")
            return [position for (position,) in found]

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> list[Failure]:
        connection.cursor().executemany(
            "INSERT INTO counter VALUES (%s, %s)", [(namespace, event.position) for event in events]
        )
        if self.before_the_end is not None:
            self.before_the_end(connection)
        return []


class folder:
    """A folder of live read models for the length of a block."""

    def __init__(
        self,
        url: str,
        read_models: Sequence[ReadModel] = READ_MODELS,
        batch: int = 5_000,
        kind: type[Folder] = Folder,
    ) -> None:
        defined = definitions(read_models)
        info = connect.conninfo(url, search_path=search_path(each.place for each in defined))
        self._connection = psycopg.connect(info, autocommit=True)
        connect.configure(self._connection)
        self._folder = kind(self._connection, folded(defined), batch)

    def __enter__(self) -> Folder:
        return self._folder

    def __exit__(self, *exception: object) -> None:
        self._connection.close()


def note(stream_id: str, sequence_num: int, event_type: str, **data: object) -> NewRow:
    return {
        "stream_id": stream_id,
        "sequence_num": sequence_num,
        "event_id": str(uuid.uuid4()),
        "event_type": event_type,
        "timestamp": at(sequence_num),
        "event_data": data,
        "metadata": {"actor": "test"},
    }


def beats(service: Service, number: int) -> None:
    """A session that has beaten this often."""
    session = new_session(str(uuid.uuid4()))
    for second in range(number - 1):
        session.beat(at(second))
    service.given(session)


def test_a_crash_within_a_batch_repeats_nothing(unprojected: Service) -> None:
    url = unprojected.url
    Counter.create(url)
    beats(unprojected, 40)

    with folder(url, [Counter()], batch=10) as first:
        assert first.fold("default") == 10
    # Its rows are written, its position is not, and its process is gone.
    crashing = Counter(lambda connection: connection.close())
    with folder(url, [crashing], batch=10) as second, pytest.raises(psycopg.OperationalError):
        second.fold("default")
    with folder(url, [Counter()], batch=10) as third:
        assert [third.fold("default") for _ in range(3)] == [20, 30, 40]

    assert Counter.counted(url) == list(range(1, 41))


def test_a_batchs_rows_and_its_position_are_one_transaction(unprojected: Service) -> None:
    url = unprojected.url
    Counter.create(url)
    beats(unprojected, 10)

    with folder(url, [Counter()]) as it:
        it.fold("default")

        written = it._connection.execute(
            "SELECT xmin::text FROM counter"
            " UNION SELECT xmin::text FROM projections.positions WHERE position > 0"
        ).fetchall()
    assert len(written) == 1


def test_one_projector_at_a_time_works_on_a_namespace(unprojected: Service) -> None:
    url = unprojected.url
    Counter.create(url)
    beats(unprojected, 20)
    others: list[int | None] = []

    def meanwhile(_: psycopg.Connection) -> None:
        with folder(url, [Counter()]) as other:
            others.append(other.fold("default"))

    with folder(url, [Counter()], batch=10) as first:
        first.fold("default")
    with folder(url, [Counter(meanwhile)]) as second:
        assert second.fold("default") == 20

    assert others == [None]
    assert Counter.counted(url) == list(range(1, 21))


def test_projectors_that_all_think_they_are_in_charge_do_no_harm(
    unprojected: Service,
) -> None:
    url = unprojected.url
    Counter.create(url)
    for _ in range(3):
        unprojected.project(definitions([*READ_MODELS, Counter()]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: beats(unprojected, 15), range(20)))

    eventually(lambda: caught_up(url), "catching up")
    assert Counter.counted(url) == list(range(1, 301))
    assert failures(url) == []
    assert len(rows(url, "sessions")) == 20


# Set aside


@pytest.mark.parametrize(
    ("bad", "read_model"),
    [
        (("session-ghost", "session_heartbeat", {"metadata": {"a": 1}}), "sessions"),
        (("session-ghost", "session_heartbeat", {}), "sessions"),
        (("session-ghost", "task_created", {}), "tasks"),
        (("session-ghost", "session_created", {"project_id": "p", "docker_slot": "x"}), "sessions"),
        (("machine-ghost", "machine_registered", {}), "machines"),
        (("machine-ghost", "machine_registered", {"hostname": None}), "machines"),
    ],
    ids=["no row", "no row, no payload", "no key", "no number", "no field", "a null"],
)
def test_an_event_that_cannot_be_folded_is_set_aside_and_the_rest_goes_on(
    unprojected: Service, bad: tuple[str, str, dict[str, Any]], read_model: str
) -> None:
    stream_id, event_type, data = bad
    before, after = new_session("before"), new_session("after")
    good = unprojected.rows(before)
    rest = unprojected.rows(after)
    unprojected.store.append("default", [*good, note(stream_id, 1, event_type, **data), *rest])

    unprojected.project()

    eventually(lambda: caught_up(unprojected.url), "going on")
    assert ("default", 2, read_model) in failures(unprojected.url)
    assert {p for _, p, _ in failures(unprojected.url)} == {2}
    there = {key for _, key in rows(unprojected.url, "sessions")}
    assert {"before", "after"} <= there
    [session] = unprojected.ask(session_reads.listed, Page(50, 0), project_id="apollo")["sessions"][
        :1
    ]
    assert session["session_id"] in ("before", "after")


def test_what_was_set_aside_says_why(unprojected: Service) -> None:
    unprojected.store.append("default", [note("session-ghost", 1, "session_paused")])

    unprojected.project()

    eventually(lambda: caught_up(unprojected.url), "going on")
    why = ask_one(unprojected.url, "SELECT error FROM projections.dead_letters")
    assert "the row is not there" in why


def test_many_bad_events_do_not_stop_the_projector(unprojected: Service) -> None:
    url = unprojected.url
    good = new_session("good")
    batch: list[NewRow] = unprojected.rows(good)
    for number in range(20):
        batch.append(note(f"session-{number}", 1, "session_created", docker_slot="x"))
        batch.append(note("session-good", 2 + number, "session_heartbeat"))
    unprojected.store.append("default", batch)

    unprojected.project()

    eventually(lambda: caught_up(url), "going on")
    assert len({position for _, position, _ in failures(url)}) == 20
    [row] = rows(url, "sessions").values()
    assert row["heartbeat_num"] == 21


def test_a_bad_event_that_two_projectors_meet_takes_no_good_one_along(
    unprojected: Service,
) -> None:
    url = unprojected.url
    first, second = new_session("first"), new_session("second")
    bad = note("session-bad", 1, "session_created", docker_slot="x")
    unprojected.store.append("default", [*unprojected.rows(first), bad, *unprojected.rows(second)])

    class Slow(Folder):
        def _fold(self, namespace: str, limit: int, is_careful: bool) -> int | None:
            if is_careful:
                with folder(url, batch=1) as faster:
                    faster.fold(namespace)
            return super()._fold(namespace, limit, is_careful)

    with folder(url, batch=1, kind=Slow) as it:
        while it.behind():
            it.fold("default")

    assert {key for _, key in rows(url, "sessions")} == {"first", "second"}
    # The database refused the rows of one read model: the others have the event.
    assert failures(url) == [("default", 2, "sessions")]


# Rebuilding


def test_rebuilt_rows_are_the_live_rows(here: Service) -> None:
    a_varied_story(here)
    here.do(CreateSession(project_id="apollo", machine_id="m1"), namespace="red")
    eventually(lambda: caught_up(here.url), "catching up")
    live = everything(here.url)
    assert all(live[table] for table in ("sessions", "tasks", "machines"))
    seen: list[tuple[int, int]] = []

    folded = schema.rebuild(here.url, lambda done, to_do: seen.append((done, to_do)))

    assert everything(here.url) == live
    assert folded == ask_one(here.url, "SELECT count(*) FROM event_store")
    assert seen[-1] == (folded, folded)


def test_rebuilding_mends_what_was_damaged(here: Service) -> None:
    a_varied_story(here)
    eventually(lambda: caught_up(here.url), "catching up")
    live = everything(here.url)
    change(here.url, "DELETE FROM tasks")
    change(here.url, "UPDATE sessions SET status = 'completed'")

    schema.rebuild(here.url)

    assert everything(here.url) == live


def test_rebuilding_disturbs_neither_writers_nor_readers(here: Service) -> None:
    a_varied_story(here, machines=2)
    sessions = [here.open_session(f"w{n}") for n in range(4)]
    done = threading.Event()
    reads: list[int] = []
    troubles: list[BaseException] = []

    def write(session_id: str) -> None:
        number = 0
        while not done.is_set() or number < 20:
            number += 1
            command = UpdateSession(session_id=session_id, metadata={"n": number})
            if error := here.begin(command).exception(20):
                troubles.append(error)
                return

    def read() -> None:
        while not done.is_set():
            try:
                reads.append(here.ask(session_reads.health)["total_sessions"])
                here.ask(session_reads.listed, Page(50, 0))
            except Exception as e:
                troubles.append(e)
                return

    threads = [threading.Thread(target=write, args=(s,)) for s in sessions]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(reads) > 3, "reading")
        for _ in range(3):
            schema.rebuild(here.url)
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert troubles == []
    # At no moment is there less than everything.
    assert len(set(reads)) == 1
    eventually(lambda: caught_up(here.url), "catching up")
    live = everything(here.url)
    schema.rebuild(here.url)
    assert everything(here.url) == live
    for session_id in sessions:
        assert (
            live["sessions"]["default", session_id]["metadata"] == here.session(session_id).metadata
        )


def test_a_schema_of_another_definition_is_built_anew(here: Service) -> None:
    a_varied_story(here, machines=1)
    eventually(lambda: caught_up(here.url), "catching up")
    live = everything(here.url)
    assert schema.install(here.url) is False
    change(here.url, "UPDATE projections.definitions SET is_built = false")

    assert schema.install(here.url) is True

    assert everything(here.url) == live
    assert schema.install(here.url) is False


def test_a_rebuild_that_broke_off_leaves_the_live_rows_and_can_be_repeated(
    here: Service,
) -> None:
    a_varied_story(here, machines=1)
    eventually(lambda: caught_up(here.url), "catching up")
    live = everything(here.url)

    def break_off(done: int, to_do: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schema.rebuild(here.url, break_off)

    assert everything(here.url) == live
    schema.rebuild(here.url)
    assert everything(here.url) == live


def test_the_analysts_views_follow_the_live_rows(here: Service) -> None:
    session_id = here.open_session()
    eventually(lambda: caught_up(here.url), "catching up")

    def seen() -> list[tuple[Any, ...]]:
        with as_owner(here.url) as connection:
            connection.execute("SET ROLE holdfast_service")
            return connection.execute("SELECT session_id FROM v_active_sessions").fetchall()

    assert seen() == [(session_id,)]
    schema.rebuild(here.url)
    assert seen() == [(session_id,)]
    other = here.open_session("m2")
    eventually(lambda: caught_up(here.url), "catching up")
    assert set(seen()) == {(session_id,), (other,)}
