from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from application.claims import ClaimItem
from application.engine import clock as clock_module
from application.engine import engine as engine_module
from application.engine import snapshots as snapshots_module
from application.engine.unit_of_work import Handler, Outcome, Outdated, Reply, UnitOfWork
from application.eventstore.migrate import migrate
from application.machines import RegisterMachine, UpdateMachine
from application.registry import HANDLERS
from application.sessions import (
    BeatSession,
    CreateSession,
    DeleteSession,
    MarkFailed,
    NoteOverdue,
    RecoverSession,
    UpdateSession,
)
from application.tasks import CreateTask, UpdateTask
from application.work_items import ClaimNext, ListItem
from domain.claims.claim import Claim, place
from domain.errors import (
    IdempotencyMismatch,
    MachineUnavailable,
    NotRecoverable,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    SlotTaken,
    Superseded,
    Unavailable,
    UnknownSession,
)
from domain.machines.machine import Machine
from domain.sessions.session import Session
from projections import schema
from tests.support.killable import KillablePostgres
from tests.support.postgres import (
    ask,
    ask_one,
    assert_contiguous,
    change,
    log_held,
    wait_until_blocked,
)
from tests.support.waiting import eventually
from tests.support.wiring import PATIENCE_SECONDS, Done, Service, context, service

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(database: str) -> Iterator[Service]:
    with service(database, handlers=WITH_DEFECTS, projecting=False) as running:
        yield running


@pytest.fixture
def there(database: str) -> Iterator[Service]:
    """Another process, as far as the database can tell: nothing is shared with the first."""
    with service(database, projecting=False) as running:
        yield running


class Look(NamedTuple):
    """Shows an aggregate as the engine has it in memory."""

    session_id: str


class Stumble(NamedTuple):
    """Comes to grief, before or after it has changed something."""

    session_id: str
    after: bool


class RefuseLate(NamedTuple):
    """Is refused by a rule after it has changed something."""

    session_id: str


class LoadLate(NamedTuple):
    """Breaks the handlers' own rule: loads after a verb."""

    session_id: str


class Signal(NamedTuple):
    """Tells when it is decided."""

    decided: threading.Event


def look(work: UnitOfWork, command: Look) -> Reply:
    return Reply(work.load(Session, command.session_id).state())


def stumble(work: UnitOfWork, command: Stumble) -> Reply:
    session = work.load(Session, command.session_id)
    if command.after:
        session.beat(work.now, metadata={"stumbled": True})
    raise ZeroDivisionError("a defect")


def refuse_late(work: UnitOfWork, command: RefuseLate) -> Reply:
    session = work.load(Session, command.session_id)
    session.beat(work.now, metadata={"refused": True})
    raise SessionNotFound


def signal(work: UnitOfWork, command: Signal) -> Reply:
    command.decided.set()
    return Reply({})


def load_late(work: UnitOfWork, command: LoadLate) -> Reply:
    work.load(Session, command.session_id).beat(work.now, metadata={"late": True})
    work.load(Machine, "never-heard-of")
    return Reply({})


WITH_DEFECTS: Mapping[type, Handler] = {
    **HANDLERS,
    Look: look,
    Stumble: stumble,
    RefuseLate: refuse_late,
    LoadLate: load_late,
    Signal: signal,
}


def beat(session_id: str, **metadata: Any) -> BeatSession:
    return BeatSession(session_id=session_id, metadata=metadata or None)


def note(session_id: str, **metadata: Any) -> UpdateSession:
    return UpdateSession(session_id=session_id, metadata=metadata)


def end(session_id: str) -> UpdateSession:
    return UpdateSession(session_id=session_id, status="completed")


def appends(url: str) -> int:
    """How many transactions wrote to the log."""
    return int(ask_one(url, "SELECT count(DISTINCT xmin::text) FROM event_store"))


def together(service: Service, *commands: object, key: str | None = None) -> list[Future[Done]]:
    """Commands that arrive while an append is under way, so that the next one takes them all."""
    with log_held(service.url):
        under_way = service.begin(RegisterMachine(hostname="first", docker_slots=[]))
        wait_until_blocked(service.url)
        futures = [service.begin(command, key=key) for command in commands]
    under_way.result(PATIENCE_SECONDS)
    return futures


# Group commit


def test_commands_that_wait_together_are_committed_together(here: Service) -> None:
    session_id = here.open_session()
    before = appends(here.url)

    futures = together(here, *(note(session_id, **{f"n{n}": n}) for n in range(20)))

    positions = [future.result(PATIENCE_SECONDS).position for future in futures]
    assert positions == list(range(positions[0], positions[0] + 20))
    assert appends(here.url) == before + 2
    assert here.session(session_id).metadata == {f"n{n}": n for n in range(20)}
    assert_contiguous(here.url)


def test_each_command_sees_what_the_ones_before_it_did(here: Service) -> None:
    session_id = here.open_session()

    first, second, third = together(
        here, end(session_id), beat(session_id), note(session_id, post_mortem=True)
    )

    assert first.result(PATIENCE_SECONDS)["status"] == "completed"
    with pytest.raises(SessionEnded):
        second.result(PATIENCE_SECONDS)
    assert third.result(PATIENCE_SECONDS)["status"] == "completed"


def test_a_refused_command_fails_alone(here: Service) -> None:
    session_id = here.open_session()

    good, bad, also_good = together(
        here, note(session_id, a=1), beat("nobody"), note(session_id, b=2)
    )

    with pytest.raises(SessionNotFound):
        bad.result(PATIENCE_SECONDS)
    assert also_good.result(PATIENCE_SECONDS).position == good.result(10).position + 1
    assert here.session(session_id).metadata == {"a": 1, "b": 2}


@pytest.mark.parametrize("after", [False, True], ids=["before a verb", "after a verb"])
def test_a_defect_fails_its_own_command_and_leaves_nothing(here: Service, after: bool) -> None:
    session_id = here.open_session()

    good, bad, also_good = together(
        here, note(session_id, a=1), Stumble(session_id, after), note(session_id, b=2)
    )

    with pytest.raises(ZeroDivisionError):
        bad.result(PATIENCE_SECONDS)
    assert good.result(PATIENCE_SECONDS).position < also_good.result(10).position
    assert here.session(session_id).metadata == {"a": 1, "b": 2}
    assert here.do(Look(session_id))["metadata"] == {"a": 1, "b": 2}


def test_several_refusals_half_way_through_are_all_answered(here: Service) -> None:
    """Each waits for what the others did to be stored, and not for each other."""
    session_id = here.open_session()

    first, fine, second, third = together(
        here,
        RefuseLate(session_id),
        note(session_id, a=1),
        RefuseLate(session_id),
        RefuseLate(session_id),
    )

    for refused in (first, second, third):
        with pytest.raises(SessionNotFound):
            refused.result(PATIENCE_SECONDS)
    fine.result(PATIENCE_SECONDS)
    assert here.session(session_id).metadata == {"a": 1}


def test_a_refusal_half_way_through_leaves_nothing(here: Service) -> None:
    session_id = here.open_session()

    good, bad, also_good = together(
        here, note(session_id, a=1), RefuseLate(session_id), note(session_id, b=2)
    )

    with pytest.raises(SessionNotFound):
        bad.result(PATIENCE_SECONDS)
    good.result(PATIENCE_SECONDS)
    also_good.result(PATIENCE_SECONDS)
    assert here.session(session_id).metadata == {"a": 1, "b": 2}
    assert here.do(Look(session_id))["metadata"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("trouble", [RefuseLate, lambda key: Stumble(key, after=True)])
def test_what_a_lone_command_left_undone_is_not_stored_with_the_next(
    here: Service, trouble: Callable[[str], object]
) -> None:
    session_id = here.open_session()

    with pytest.raises((SessionNotFound, ZeroDivisionError)):
        here.do(trouble(session_id))

    assert here.do(note(session_id, a=1))["metadata"] == {"a": 1}
    assert here.session(session_id).metadata == {"a": 1}


def test_a_handler_that_loads_too_late_leaves_nothing(here: Service) -> None:
    session_id = here.open_session()

    with pytest.raises(RuntimeError, match="LoadLate loads after a verb"):
        here.do(LoadLate(session_id))

    assert here.session(session_id).metadata == {}
    assert here.do(note(session_id, a=1))["metadata"] == {"a": 1}


def test_a_commands_position_is_that_of_its_own_last_event(here: Service) -> None:
    here.open_session("m1")
    failing = here.open_session("m2")
    task = here.do(CreateTask(session_id=failing, project_id="apollo", task_name="compile"))
    here.do(UpdateTask(task_id=task["task_id"], session_id=failing, status="in_progress"))

    first, second = together(
        here, MarkFailed(session_id=failing, error_message="disk"), note(failing, after=1)
    )

    failed, noted = first.result(PATIENCE_SECONDS).position, second.result(10).position
    last = {r.metadata["command"]: r.position for r in here.store.page_of_log("default")[0]}
    assert failed == last["mark_failed"]
    assert noted == last["update_session"] == failed + 1


def test_a_command_that_changes_nothing_stores_nothing(here: Service) -> None:
    session_id = here.open_session()
    head = here.store.head("default")

    assert here.do(UpdateSession(session_id=session_id, status="active")).position == head

    assert here.store.head("default") == head


def test_all_the_events_of_a_command_name_the_request(here: Service) -> None:
    here.open_session()

    events = here.store.page_of_log("default")[0]

    assert {e.event_type for e in events} >= {"session_created", "claim_granted"}
    assert len({e.metadata["request_id"] for e in events}) == 1
    assert {(e.metadata["actor"], e.metadata["command"]) for e in events} == {
        ("key-1", "create_session")
    }


def test_namespaces_are_worlds_of_their_own(here: Service) -> None:
    command = CreateSession(project_id="apollo", machine_id="m1")

    red = here.do(command, namespace="red")
    blue = here.do(command, namespace="blue")

    assert (red.status, blue.status) == (201, 201)
    with pytest.raises(SessionNotFound):
        here.do(beat(red["session_id"]), namespace="blue")
    assert_contiguous(here.url, "red")
    assert_contiguous(here.url, "blue")


# Idempotency keys


def create(machine_id: str = "m1", **rest: Any) -> CreateSession:
    return CreateSession(project_id="apollo", machine_id=machine_id, **rest)


def sessions_there(url: str) -> int:
    return int(
        ask_one(url, "SELECT count(*) FROM event_store WHERE event_type = 'session_created'")
    )


def test_a_repeated_request_gets_the_same_reply_and_causes_nothing(here: Service) -> None:
    first = here.do(create(), key="once")
    head = here.store.head("default")
    here.do(beat(first["session_id"]))

    again = here.do(create(), key="once")

    assert again == first
    assert here.store.head("default") == head + 1


def test_an_event_keeps_the_key_that_its_caller_gave(here: Service) -> None:
    here.do(create(), key="once")

    assert {e.metadata["command_id"] for e in here.store.page_of_log("default")[0]} == {"once"}


def test_a_key_used_for_something_else_is_refused(here: Service) -> None:
    here.do(create(), key="once")
    head = here.store.head("default")

    with pytest.raises(IdempotencyMismatch):
        here.do(create("m2"), key="once")

    assert here.store.head("default") == head


def test_a_key_counts_within_its_namespace(here: Service) -> None:
    red = here.do(create(), key="once", namespace="red")
    blue = here.do(create(), key="once", namespace="blue")

    assert red["session_id"] != blue["session_id"]


def test_a_refused_request_may_be_sent_again(here: Service) -> None:
    occupied = here.open_session()
    with pytest.raises(SessionExists):
        here.do(create(), key="once")
    here.do(end(occupied))

    assert here.do(create(), key="once").status == 201


def test_a_repeat_that_changed_nothing_is_remembered_too(here: Service) -> None:
    session_id = here.open_session()
    first = here.do(UpdateSession(session_id=session_id, status="active"), key="once")
    here.do(end(session_id))

    assert here.do(UpdateSession(session_id=session_id, status="active"), key="once") == first


def test_two_requests_with_one_key_in_one_batch_have_one_effect(here: Service) -> None:
    here.open_session("elsewhere")
    before = sessions_there(here.url)

    futures = together(here, *[create()] * 3, key="once")

    replies = [future.result(PATIENCE_SECONDS) for future in futures]
    assert replies[0] == replies[1] == replies[2]
    assert replies[0].status == 201
    assert sessions_there(here.url) == before + 1


def test_two_different_requests_with_one_key_in_one_batch(here: Service) -> None:
    here.open_session("elsewhere")

    first, second = together(here, create("m1"), create("m2"), key="once")

    assert first.result(PATIENCE_SECONDS).status == 201
    with pytest.raises(IdempotencyMismatch):
        second.result(PATIENCE_SECONDS)


def test_repeats_in_one_batch_survive_a_conflict(here: Service, there: Service) -> None:
    session_id = here.open_session()
    here.do(beat(session_id))
    there.do(note(session_id, moved=True))

    # The batch is decided on an outdated session, so its append is refused at first.
    futures = together(here, *[note(session_id, once=True)] * 2, key="once")

    first, second = (future.result(PATIENCE_SECONDS) for future in futures)
    assert first == second
    assert first["metadata"] == {"moved": True, "once": True}


def test_one_key_in_two_processes_at_once_has_one_effect(here: Service, there: Service) -> None:
    here.open_session("elsewhere")
    before = sessions_there(here.url)
    with log_held(here.url):
        futures = [at.begin(create(), key="once") for at in (here, there)]
        wait_until_blocked(here.url, 2)

    first, second = (future.result(PATIENCE_SECONDS) for future in futures)

    assert first == second
    assert sessions_there(here.url) == before + 1


# Several processes


def test_an_acceptance_that_others_made_wrong_does_not_stand(here: Service, there: Service) -> None:
    session_id = here.open_session()
    here.do(beat(session_id))
    there.do(end(session_id))

    with pytest.raises(SessionEnded):
        here.do(beat(session_id))

    assert_contiguous(here.url)


def test_a_refusal_that_others_made_wrong_does_not_stand(here: Service, there: Service) -> None:
    session_id = here.open_session()
    recover = RecoverSession(session_id=session_id, new_machine_id="m2")
    with pytest.raises(NotRecoverable):
        here.do(recover)
    there.do(MarkFailed(session_id=session_id, error_message="disk"))

    assert here.do(recover).status == 201


def test_an_unknown_thing_that_others_made_known_is_found(here: Service, there: Service) -> None:
    machine = UpdateMachine(machine_id="m9", status="maintenance")
    with pytest.raises(Exception, match="There is no machine m9"):
        here.do(machine)
    there.do(RegisterMachine(machine_id="m9", hostname="tower", docker_slots=[]))

    assert here.do(machine)["status"] == "maintenance"


def test_what_a_decision_only_read_must_not_have_moved(here: Service, there: Service) -> None:
    """The machine is read, not written, when a session is recovered onto it."""
    here.do(RegisterMachine(machine_id="m2", hostname="tower", docker_slots=[]))
    session_id = here.open_session()
    here.do(MarkFailed(session_id=session_id, error_message="disk"))
    there.do(UpdateMachine(machine_id="m2", status="offline"))

    with pytest.raises(MachineUnavailable):
        here.do(RecoverSession(session_id=session_id, new_machine_id="m2"))


def test_a_place_has_one_session_whoever_asks(here: Service, there: Service) -> None:
    here.open_session("elsewhere")
    with log_held(here.url):
        futures = [at.begin(create()) for at in (here, there) for _ in range(8)]
        wait_until_blocked(here.url, 2)

    outcomes = [future.exception(10) or future.result() for future in futures]

    [winner] = [o for o in outcomes if isinstance(o, Done)]
    losers = [o for o in outcomes if isinstance(o, SessionExists)]
    assert len(losers) == 15
    assert {loser.details["session_id"] for loser in losers} == {winner["session_id"]}
    claim = here.replayed(Claim, place("apollo", "m1", None))
    assert claim.holder_id == winner["session_id"]


def test_a_recovery_asked_for_fifty_times_has_one_successor(here: Service, there: Service) -> None:
    """Spec 7: 201 once, then 200."""
    session_id = here.open_session()
    here.do(MarkFailed(session_id=session_id, error_message="disk"))
    recover = RecoverSession(session_id=session_id, new_machine_id="m2")
    with log_held(here.url):
        futures = [at.begin(recover) for at in (here, there) for _ in range(25)]
        wait_until_blocked(here.url, 2)

    replies = [future.result(PATIENCE_SECONDS) for future in futures]

    assert sorted(reply.status for reply in replies) == [200] * 49 + [201]
    assert len({reply["session_id"] for reply in replies}) == 1


@pytest.mark.parametrize("is_ahead", [False, True])
def test_two_processes_that_hammer_one_session_lose_nothing(
    here: Service, there: Service, monkeypatch: pytest.MonkeyPatch, is_ahead: bool
) -> None:
    if is_ahead:
        decide_ahead(monkeypatch, batch=4)
    session_id = here.open_session()
    rounds = 30

    def hammer(at: Service, name: str) -> list[Future[Done]]:
        futures = []
        for number in range(rounds):
            futures.append(at.begin(note(session_id, **{f"{name}-{number}": number})))
            # In step with neither itself nor the other: batches of all sizes meet.
            if number % 3 == 0:
                futures[-1].exception(10)
        return futures

    found: dict[str, list[Future[Done]]] = {}
    threads = [
        threading.Thread(target=lambda at=at, name=name: found.update({name: hammer(at, name)}))
        for at, name in ((here, "here"), (there, "there"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    positions = [f.result(PATIENCE_SECONDS).position for futures in found.values() for f in futures]
    assert len(set(positions)) == 2 * rounds
    assert len(here.session(session_id).metadata) == 2 * rounds
    assert here.do(Look(session_id))["version"] == here.session(session_id).version
    assert_contiguous(here.url)


def test_a_process_of_its_own_hammers_along(here: Service) -> None:
    session_id = here.open_session()
    here.do(beat(session_id))
    times = 40

    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.hammer", here.url, session_id, str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        acknowledged = [here.do(note(session_id, **{f"n{n}": n})).position for n in range(times)]
        theirs = [int(line) for line in other.stdout]
    assert other.returncode == 0

    session = here.session(session_id)
    assert {k for k in session.metadata if k.startswith("n")} == {f"n{n}" for n in range(times)}
    assert {k for k in session.metadata if k.startswith("other")} == {
        f"other-{n}" for n in range(times)
    }
    beats = {
        r.position
        for r in here.store.page_of_log(
            "default", types=["session_heartbeat"], after=min(theirs) - 1
        )[0]
    }
    assert set(theirs) == beats
    assert not set(theirs) & set(acknowledged)
    assert_contiguous(here.url)


def test_a_refusal_half_way_through_that_others_made_wrong_does_not_stand(
    here: Service, there: Service
) -> None:
    """The process knows that its session was replaced, and not yet that its place went with it."""
    first = here.do(create(replace=True))["session_id"]
    second = there.do(create(replace=True))["session_id"]
    with pytest.raises(SessionEnded):
        here.do(beat(first))

    third = here.do(create(replace=True))["session_id"]

    assert here.session(second).status == "failed"
    assert here.replayed(Claim, place("apollo", "m1", None)).holder_id == third


def test_the_next_item_is_found_however_many_others_took_meanwhile(
    here: Service, there: Service
) -> None:
    """Spec 6: an item, or none; that others keep claiming is nobody's error."""
    ours, theirs = here.open_session("m1"), there.open_session("m2")
    items = [f"SD-{number}" for number in range(12)]
    for item_id in items:
        here.do(ListItem(item_id=item_id))
    for item_id in items[:-1]:
        there.do(ClaimItem(item_id=item_id, session_id=theirs))

    claimed = here.do(ClaimNext(session_id=ours, candidates=items))

    assert (claimed.status, claimed["item_id"]) == (201, items[-1])


def test_of_candidates_that_others_took_all_nobody_says_that_there_is_no_work(
    here: Service, there: Service
) -> None:
    """Whoever asked looks again: there may be more than those."""
    ours, theirs = here.open_session("m1"), there.open_session("m2")
    for item_id in ("SD-1", "SD-2"):
        there.do(ClaimItem(item_id=item_id, session_id=theirs))

    with pytest.raises(Outdated):
        here.do(ClaimNext(session_id=ours, candidates=["SD-1", "SD-2"]))
    assert here.do(ClaimNext(session_id=ours)).status == 204


# Deciding ahead


def decide_ahead(monkeypatch: pytest.MonkeyPatch, batch: int = 1) -> None:
    """Small batches, each decided while the one before it is stored."""
    monkeypatch.setattr(engine_module, "BATCH_LIMIT", batch)
    monkeypatch.setattr(engine_module, "AHEAD_FROM", 1)


def in_one_go(service: Service, *commands: object) -> Future[list[Outcome | BaseException]]:
    """Hand over all commands at the same moment."""
    return service.loop.start(service.engine.submit_all([(c, context(c)) for c in commands]))


def test_while_a_batch_is_stored_the_next_is_decided(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_ahead(monkeypatch)
    session_id = here.open_session()
    decided = threading.Event()
    with log_held(here.url):
        outcomes = in_one_go(here, note(session_id, first=True), Signal(decided))
        wait_until_blocked(here.url)
        assert decided.wait(PATIENCE_SECONDS)
        assert not outcomes.done()

    assert [isinstance(o, Outcome) for o in outcomes.result(PATIENCE_SECONDS)] == [True, True]


def test_what_was_decided_ahead_is_stored_in_its_turn(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_ahead(monkeypatch, batch=5)
    session_id = here.open_session()
    before = appends(here.url)

    outcomes = in_one_go(here, *(note(session_id, **{f"n{n}": n}) for n in range(40))).result(
        PATIENCE_SECONDS
    )

    positions = [o.position for o in outcomes if isinstance(o, Outcome)]
    assert positions == list(range(positions[0], positions[0] + 40))
    assert appends(here.url) == before + 8
    assert list(here.session(session_id).metadata) == [f"n{n}" for n in range(40)]
    assert_contiguous(here.url)


def test_what_was_decided_on_top_of_a_conflict_is_decided_again(
    here: Service, there: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_ahead(monkeypatch)
    session_id = here.open_session()
    there.do(note(session_id, theirs=True))

    outcomes = in_one_go(here, *(note(session_id, **{f"n{n}": n}) for n in range(4))).result(
        PATIENCE_SECONDS
    )

    assert all(isinstance(o, Outcome) for o in outcomes)
    assert set(here.session(session_id).metadata) == {"theirs", "n0", "n1", "n2", "n3"}
    assert here.do(Look(session_id))["version"] == here.session(session_id).version
    assert_contiguous(here.url)


def test_a_refusal_decided_on_top_of_a_conflict_does_not_stand(
    here: Service, there: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_ahead(monkeypatch)
    session_id = here.open_session()
    there.do(DeleteSession(session_id=session_id))

    outcomes = in_one_go(here, end(session_id), beat(session_id)).result(PATIENCE_SECONDS)

    assert [type(o) for o in outcomes] == [SessionNotFound, SessionNotFound]


def test_a_snapshot_holds_nothing_that_was_decided_ahead(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_ahead(monkeypatch, batch=5)
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_EVERY", 10)
    session_id = here.open_session()
    in_one_go(here, *(note(session_id, n=n) for n in range(60))).result(PATIENCE_SECONDS)

    kept = snapshots(here.url, session_id)
    assert len(kept) >= 5
    for number in kept:
        found = here.store.snapshot_before(
            "default", Session.stream_id(session_id), Session.state_version, number
        )
        replayed = Session(id=Session.stream_id(session_id))
        for row in here.store.read_stream("default", replayed.id, upto=number):
            replayed.mutate(here.mapper.event(*row[2:]))
        assert found == (number, replayed.state())


# Snapshots


def beaten(here: Service, times: int) -> str:
    """A session that has beaten this often, one at a time as far as its stream can tell."""
    session_id = here.open_session(hostname="tower")
    for outcome in here.all_at_once([beat(session_id, n=n) for n in range(times)]):
        assert isinstance(outcome, Done)
    return session_id


def snapshots(url: str, session_id: str) -> list[int]:
    rows = ask(
        url,
        "SELECT sequence_num FROM snapshots WHERE stream_id = %s ORDER BY 1",
        Session.stream_id(session_id),
    )
    return [number for (number,) in rows]


def test_a_snapshot_is_kept_every_so_many_events(here: Service) -> None:
    every = snapshots_module.SNAPSHOT_EVERY
    session_id = here.open_session()
    while here.session(session_id).version < every - 1:
        here.do(beat(session_id))
    assert snapshots(here.url, session_id) == []

    here.do(beat(session_id))
    assert eventually(lambda: snapshots(here.url, session_id)) == [every]

    for _ in range(every):
        here.do(beat(session_id))
    assert eventually(lambda: snapshots(here.url, session_id)[1:]) == [2 * every]


def test_a_large_state_is_kept_less_often(here: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_EVERY", 10)
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_LARGE_EVERY", 30)
    session_id = here.open_session(metadata={"large": "x" * snapshots_module.LARGE_STATE_BYTES})

    while here.session(session_id).version < 45:
        here.do(beat(session_id))

    assert snapshots(here.url, session_id) == [30]


def test_a_snapshot_and_what_followed_give_the_same_as_all_events(
    here: Service, there: Service, database: str
) -> None:
    session_id = beaten(here, 1_200)
    here.do(CreateTask(session_id=session_id, project_id="apollo", task_name="compile"))
    assert eventually(lambda: snapshots(database, session_id))

    with service(database, handlers=WITH_DEFECTS, projecting=False) as fresh:
        assert fresh.do(Look(session_id)).value == here.session(session_id).state()


def falsify_snapshots(url: str) -> None:
    """So that one can tell whether an aggregate was loaded from one."""
    assert change(url, 'UPDATE snapshots SET state = state || \'{"hostname": "forged"}\'')


def test_loading_begins_at_a_snapshot(here: Service) -> None:
    session_id = beaten(here, 600)
    assert eventually(lambda: snapshots(here.url, session_id))
    falsify_snapshots(here.url)

    with service(here.url, handlers=WITH_DEFECTS, projecting=False) as fresh:
        assert fresh.do(Look(session_id))["hostname"] == "forged"


def test_a_snapshot_of_an_older_shape_is_ignored(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = beaten(here, 600)
    assert eventually(lambda: snapshots(here.url, session_id))
    falsify_snapshots(here.url)
    monkeypatch.setattr(Session, "state_version", Session.state_version + 1)

    with service(here.url, handlers=WITH_DEFECTS, projecting=False) as fresh:
        assert fresh.do(Look(session_id)).value == here.session(session_id).state()


def test_the_cache_may_forget(here: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CACHE_LIMIT", 8)
    ids = [here.open_session(f"m{n}") for n in range(12)]

    for session_id in ids:
        assert here.do(note(session_id, a=1))["metadata"] == {"a": 1}

    assert_contiguous(here.url)


# The clock


def test_the_hosts_clock_decides_nothing(here: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API host an hour off changes no decision (spec 3)."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3_600)

    class AnHourAhead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + timedelta(hours=1)

    monkeypatch.setattr(clock_module, "datetime", AnHourAhead)
    before = ask_one(here.url, "SELECT clock_timestamp()")

    with service(here.url, projecting=False) as fresh:
        session_id = fresh.open_session()
        reply = fresh.do(beat(session_id))
        overdue = fresh.do(NoteOverdue(session_id=session_id))

    after = ask_one(here.url, "SELECT clock_timestamp()")
    assert all(before <= e.timestamp <= after for e in here.store.page_of_log("default")[0])
    assert reply["stale"] is False
    assert reply["age_seconds"] <= (after - before).total_seconds()
    assert overdue["stalled"] is False


def an_old_session(here: Service, seconds: float, key: str = "old") -> str:
    """A session in its place whose last sign of life was so long ago."""
    then = ask_one(here.url, "SELECT clock_timestamp()") - timedelta(seconds=seconds)
    session = Session(id=Session.stream_id(key))
    session.open(then, "apollo", "m1")
    claim = Claim(id=Claim.stream_id(place("apollo", "m1", None)))
    session.acquire(then, claim.resource, claim.grant(then, "session", key))
    here.given(session, claim)
    return key


def test_a_silent_session_is_overdue_by_the_databases_clock(here: Service) -> None:
    old = an_old_session(here, 181)

    reply = here.do(NoteOverdue(session_id=old))

    assert reply["stalled"] is True
    assert reply["time_since_heartbeat_ms"] >= 181_000
    assert here.session(old).status == "stalled"


def test_a_heartbeat_tells_the_gap_before_it(here: Service) -> None:
    old = an_old_session(here, 500)

    reply = here.do(beat(old))

    assert reply["stale"] is True
    assert reply["age_seconds"] >= 500
    assert reply["status"] == "active"
    assert here.do(beat(old))["stale"] is False


# Rules that span aggregates


def test_a_stalled_session_makes_way_and_is_told_so(here: Service) -> None:
    old = an_old_session(here, 181)

    new = here.do(create()).value["session_id"]

    with pytest.raises(Superseded) as refused:
        here.do(beat(old))
    assert refused.value.details == {"superseded_by": new}
    assert here.session(old).status == "stalled"
    assert here.session(old).held == {}
    assert here.replayed(Claim, place("apollo", "m1", None)).holder_id == new


def test_replacing_fails_the_old_session_in_the_same_append(here: Service) -> None:
    old = here.open_session()
    before = appends(here.url)

    new = here.do(create(replace=True))["session_id"]

    assert appends(here.url) == before + 1
    assert here.session(old).status == "failed"
    assert here.session(new).status == "active"
    assert here.session(new).held == {place("apollo", "m1", None): 2}


def test_a_docker_slot_takes_one_session_of_any_project(here: Service) -> None:
    first = here.open_session(docker_slot=1)

    with pytest.raises(SlotTaken) as refused:
        here.do(CreateSession(project_id="other", machine_id="m1", docker_slot=1))

    assert refused.value.details["session_id"] == first
    assert here.do(CreateSession(project_id="other", machine_id="m1", docker_slot=2)).status == 201
    assert here.do(CreateSession(project_id="other", machine_id="m1")).status == 201


@pytest.mark.parametrize("how", ["completed", "failed", "deleted"])
def test_whoever_goes_leaves_the_place_free(here: Service, how: str) -> None:
    session_id = here.open_session(docker_slot=1)
    commands: dict[str, object] = {
        "completed": end(session_id),
        "failed": MarkFailed(session_id=session_id, error_message="disk"),
        "deleted": DeleteSession(session_id=session_id),
    }

    here.do(commands[how])

    assert here.session(session_id).held == {}
    assert here.do(create(docker_slot=1)).status == 201


def test_recovering_moves_everything_in_one_append(here: Service) -> None:
    original = here.open_session(metadata={"goal": "moon"})
    for name in ("done", "doing", "to do"):
        here.do(CreateTask(session_id=original, project_id="apollo", task_name=name))
    done, doing, _ = here.session(original).tasks
    here.do(UpdateTask(task_id=done, session_id=original, status="completed"))
    here.do(UpdateTask(task_id=doing, session_id=original, status="in_progress"))
    here.do(MarkFailed(session_id=original, error_message="disk"))
    before = appends(here.url)

    reply = here.do(RecoverSession(session_id=original, new_machine_id="m2"))

    assert appends(here.url) == before + 1
    successor = here.session(reply["session_id"])
    assert successor.recovered_from == original
    assert successor.metadata == {"goal": "moon", "recovery": {"recovered_from": original}}
    assert [(t.task_name, t.status) for t in successor.tasks.values()] == [
        ("doing", "pending"),
        ("to do", "pending"),
    ]
    assert here.session(original).recovered_to == successor.key
    assert here.replayed(Machine, "m2").is_known
    with pytest.raises(SessionEnded) as refused:
        here.do(beat(original))
    assert refused.value.details["recovered_to"] == successor.key


def test_recovering_onto_an_occupied_place_changes_nothing(here: Service) -> None:
    original = here.open_session("m1")
    here.open_session("m2")
    here.do(MarkFailed(session_id=original, error_message="disk"))
    head = here.store.head("default")

    with pytest.raises(SessionExists):
        here.do(RecoverSession(session_id=original, new_machine_id="m2"))

    assert here.store.head("default") == head


def test_a_task_needs_a_session_that_is_there(here: Service) -> None:
    with pytest.raises(UnknownSession):
        here.do(CreateTask(session_id="nobody", project_id="apollo", task_name="compile"))


# Trouble


def test_too_much_at_once_is_refused_and_not_piled_up(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = here.open_session()
    monkeypatch.setattr(engine_module, "INBOX_LIMIT", 5)
    with log_held(here.url):
        under_way = here.begin(beat(session_id))
        wait_until_blocked(here.url)
        accepted = [here.begin(beat(session_id)) for _ in range(5)]
        refused = here.begin(beat(session_id))
        assert isinstance(refused.exception(10), Unavailable)

    for future in [under_way, *accepted]:
        assert future.result(PATIENCE_SECONDS).status == 200


def test_stopping_finishes_what_was_accepted_and_takes_no_more(here: Service) -> None:
    session_id = here.open_session()
    with log_held(here.url):
        under_way = here.begin(note(session_id, a=1))
        wait_until_blocked(here.url)
        accepted = here.begin(note(session_id, b=2))
        stopping = threading.Thread(target=here.engine.stop)
        stopping.start()
        eventually(lambda: here.engine._stopping, "stopping")
        with pytest.raises(Unavailable):
            here.do(beat(session_id))
    stopping.join()

    assert under_way.result(PATIENCE_SECONDS).value["metadata"] == {"a": 1}
    assert accepted.result(PATIENCE_SECONDS).value["metadata"] == {"a": 1, "b": 2}


def test_a_caller_that_gave_up_disturbs_nobody(here: Service) -> None:
    session_id = here.open_session()
    with log_held(here.url):
        impatient = here.begin(note(session_id, a=1))
        wait_until_blocked(here.url)
        patient = here.begin(note(session_id, b=2))
        impatient.cancel()

    assert patient.result(PATIENCE_SECONDS)["metadata"] == {"a": 1, "b": 2}


def test_what_was_acknowledged_outlasts_a_crash_of_the_database(
    private_cluster: KillablePostgres,
) -> None:
    url = private_cluster.url
    migrate(url)
    schema.install(url)
    with service(url, projecting=False) as here:
        session_id = here.open_session()
        acknowledged: list[int] = []
        errors: list[BaseException] = []

        def hammer() -> None:
            for number in range(100_000):
                outcome = here.begin(note(session_id, n=number)).exception(20)
                if outcome is not None:
                    errors.append(outcome)
                    return
                acknowledged.append(number)

        hammering = threading.Thread(target=hammer)
        hammering.start()
        eventually(lambda: len(acknowledged) > 50, "a few commands")
        private_cluster.kill()
        hammering.join()
        assert [type(e) for e in errors] == [Unavailable]
        with pytest.raises(Unavailable):
            here.do(beat(session_id))

        private_cluster.start()

        def answered() -> bool:
            try:
                return here.do(note(session_id, back=True)).status == 200
            except Unavailable:
                return False

        eventually(answered, "an answer after the crash")
        noted = [
            r.event_data["metadata"]["n"]
            for r in here.store.page_of_log("default", types=["session_updated"])[0]
            if "n" in r.event_data["metadata"]
        ]
        # The one that was under way may be there or not: nobody was told.
        assert noted[: len(acknowledged)] == acknowledged
        assert len(noted) <= len(acknowledged) + 1
        assert_contiguous(url)


def test_a_command_that_cannot_be_stored_harms_no_other(here: Service) -> None:
    good, bad = here.open_session("good"), here.open_session("bad")

    with log_held(here.url):
        # While this one's append waits, the others gather for the next.
        first = here.begin(note(good, step=0))
        wait_until_blocked(here.url)
        fine = here.begin(note(good, step=1))
        poisoned = here.begin(note(bad, text="\x00"))
        also_fine = here.begin(note(bad, step=2))

    for future in (first, fine, also_fine):
        future.result(PATIENCE_SECONDS)
    assert poisoned.exception(10) is not None
    assert here.replayed(Session, good).metadata == {"step": 1}
    assert here.replayed(Session, bad).metadata == {"step": 2}
