from __future__ import annotations

import pytest

from domain.errors import (
    AlreadyRecovered,
    HoldfastError,
    InvalidTransition,
    NotArchivable,
    NotRecoverable,
    SessionEnded,
    SessionNotFound,
    Superseded,
    TaskNotFound,
)
from domain.sessions.session import LIVE, SESSION_STATUSES, Session, SessionStatus
from domain.sessions.session_events import EVENTS
from tests.support.given import (
    THRESHOLD_MS,
    at,
    events_of,
    new_session,
    payload_of,
    session_that_is,
    session_with_task,
    types_of,
)

ENDED: list[SessionStatus] = ["completed", "failed"]


def recovered() -> Session:
    session = session_that_is("failed")
    session.recover(at(2), "s2", "m2")
    return session


def superseded() -> Session:
    session = session_that_is("stalled")
    session.acquire(at(2), "@place/apollo/m1/", 1)
    session.lose(at(3), "@place/apollo/m1/", "s2")
    return session


def deleted() -> Session:
    session = session_that_is("completed")
    session.delete(at(2))
    return session


def unknown() -> Session:
    return Session(id="session-nobody")


def test_a_new_session_is_active_and_counts_as_alive_since_it_was_opened() -> None:
    session = new_session(metadata={"goal": "moon", "nothing": None}, docker_slot=3)

    assert session.status == "active"
    assert session.is_live
    assert session.last_heartbeat == session.started_at == session.created_at == at(0)
    assert session.metadata == {"goal": "moon"}
    assert session.docker_slot == 3
    assert session.version == 1
    assert session.key == "s1"
    assert types_of(session) == ["session_created"]


# From each live status to every status: what is recorded for it.
TRANSITIONS: dict[tuple[SessionStatus, SessionStatus], list[str]] = {
    ("active", "active"): [],
    ("active", "paused"): ["session_paused"],
    ("active", "stalled"): ["session_stalled"],
    ("active", "completed"): ["session_completed"],
    ("active", "failed"): ["session_failed"],
    ("paused", "active"): ["session_activated"],
    ("paused", "paused"): [],
    ("paused", "stalled"): ["session_stalled"],
    ("paused", "completed"): ["session_completed"],
    ("paused", "failed"): ["session_failed"],
    ("stalled", "active"): ["session_activated"],
    ("stalled", "paused"): ["session_paused"],
    ("stalled", "stalled"): [],
    ("stalled", "completed"): ["session_completed"],
    ("stalled", "failed"): ["session_failed"],
}


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_a_live_status_changes_to_any_other(before: SessionStatus, after: SessionStatus) -> None:
    session = session_that_is(before)
    events_of(session)

    session.change_status(at(9), after)

    assert session.status == after
    assert types_of(session) == TRANSITIONS[before, after]


def test_the_table_of_transitions_is_complete() -> None:
    assert set(TRANSITIONS) == {(a, b) for a in LIVE for b in SESSION_STATUSES}


@pytest.mark.parametrize("before", ENDED)
@pytest.mark.parametrize("after", SESSION_STATUSES)
def test_an_ended_session_goes_nowhere(before: SessionStatus, after: SessionStatus) -> None:
    session = session_that_is(before)
    events_of(session)

    with pytest.raises(InvalidTransition) as refused:
        session.change_status(at(9), after)

    assert refused.value.details == {"from": before, "to": after}
    assert types_of(session) == []


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_ending_notes_when_and_how(status: SessionStatus) -> None:
    session = new_session()

    session.change_status(at(5), status)

    assert session.completed_at == at(5)
    assert session.outcome == status
    assert not session.is_live


# Heartbeats


def test_a_heartbeat_is_the_last_sign_of_life() -> None:
    session = new_session()

    session.beat(at(60), current_task_id="t7", metadata={"step": 2})

    assert session.last_heartbeat == session.updated_at == at(60)
    assert session.current_task_id == "t7"
    assert session.metadata == {"step": 2}
    assert session.gap_seconds(at(75)) == 15


def test_a_heartbeat_without_a_task_keeps_the_current_one() -> None:
    session = new_session()
    session.beat(at(1), current_task_id="t7")

    session.beat(at(2))

    assert session.current_task_id == "t7"


def test_a_late_heartbeat_revives_a_stalled_session() -> None:
    session = session_that_is("stalled")
    events_of(session)

    session.beat(at(900))

    assert session.status == "active"
    assert types_of(session) == ["session_activated", "session_heartbeat"]


def test_a_heartbeat_leaves_a_paused_session_paused() -> None:
    session = session_that_is("paused")
    events_of(session)

    session.beat(at(9))

    assert session.status == "paused"
    assert session.last_heartbeat == at(9)
    assert types_of(session) == ["session_heartbeat"]


@pytest.mark.parametrize("status", ENDED)
def test_a_heartbeat_of_an_ended_session_is_refused(status: SessionStatus) -> None:
    session = session_that_is(status)

    with pytest.raises(SessionEnded) as refused:
        session.beat(at(9))

    assert refused.value.details == {"status": status, "recovered_to": None}


def test_a_heartbeat_of_a_recovered_session_names_the_successor() -> None:
    with pytest.raises(SessionEnded) as refused:
        recovered().beat(at(9))

    assert refused.value.details == {"status": "completed", "recovered_to": "s2"}


def test_a_heartbeat_of_a_superseded_session_names_who_took_its_place() -> None:
    with pytest.raises(Superseded) as refused:
        superseded().beat(at(9))

    assert refused.value.details == {"superseded_by": "s2"}


def test_losing_a_work_item_supersedes_nobody() -> None:
    session = new_session()
    session.acquire(at(1), "item-7", 1)

    session.lose(at(2), "item-7", "s2")

    assert session.held == {}
    session.beat(at(3))


def test_the_place_of_a_recovered_session_goes_on_without_superseding_it() -> None:
    session = session_that_is("failed")
    session.acquire(at(1), "@place/apollo/m1/", 1)
    session.recover(at(2), "s2", "m1")

    session.lose(at(2), "@place/apollo/m1/", "s2")

    assert session.superseded_by is None


@pytest.mark.parametrize("make", [unknown, deleted])
def test_what_is_not_there_takes_no_heartbeat(make: type) -> None:
    with pytest.raises(SessionNotFound):
        make().beat(at(9))


# Stalls


def test_at_the_threshold_a_session_is_not_stalled_yet() -> None:
    session = new_session()

    assert not session.is_overdue(at(180), THRESHOLD_MS)
    assert session.status_at(at(180), THRESHOLD_MS) == "active"
    assert session.is_overdue(at(180.001), THRESHOLD_MS)
    assert session.status_at(at(180.001), THRESHOLD_MS) == "stalled"


def test_a_sessions_own_threshold_goes_before_the_services() -> None:
    session = new_session(stall_threshold_ms=600_000)

    assert not session.is_overdue(at(600), THRESHOLD_MS)
    assert session.is_overdue(at(601), THRESHOLD_MS)


@pytest.mark.parametrize("status", ["paused", "completed", "failed"])
def test_only_an_active_session_can_be_overdue(status: SessionStatus) -> None:
    session = session_that_is(status)

    assert session.status_at(at(86_400), THRESHOLD_MS) == status
    assert not session.note_overdue(at(86_400), THRESHOLD_MS)


def test_the_sweep_records_a_stall_and_how_long_the_silence_was() -> None:
    session = new_session()
    events_of(session)

    assert session.note_overdue(at(200), THRESHOLD_MS)

    [stalled] = events_of(session)
    assert payload_of(stalled) == {"reason": "no_heartbeat", "age_ms": 200_000}
    assert session.status == "stalled"
    assert session.completed_at is None


def test_a_heartbeat_in_between_wins_over_the_sweep() -> None:
    session = new_session()
    session.beat(at(199))
    events_of(session)

    assert not session.note_overdue(at(200), THRESHOLD_MS)
    assert types_of(session) == []


def test_a_stall_is_recorded_once() -> None:
    session = new_session()
    session.note_overdue(at(200), THRESHOLD_MS)

    assert not session.note_overdue(at(300), THRESHOLD_MS)


@pytest.mark.parametrize("make", [unknown, deleted])
def test_the_sweep_passes_over_what_is_not_there(make: type) -> None:
    assert not make().note_overdue(at(900), THRESHOLD_MS)


def test_marking_as_stalled_says_so_and_ends_nothing() -> None:
    session = new_session()
    events_of(session)

    session.mark_stalled(at(10))
    session.mark_stalled(at(11))

    [stalled] = events_of(session)
    assert payload_of(stalled) == {"reason": "marked", "age_ms": 10_000}
    assert session.completed_at is None


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_session_cannot_be_marked_as_stalled(status: SessionStatus) -> None:
    with pytest.raises(InvalidTransition):
        session_that_is(status).mark_stalled(at(9))


# Failing


def test_failing_takes_the_tasks_in_progress_along() -> None:
    session = session_with_task("in_progress")
    session.add_task(at(3), "t2", "test")
    events_of(session)

    session.fail(at(4), "out of memory", {"signal": 9})

    assert session.status == session.outcome == "failed"
    assert session.completed_at == at(4)
    assert session.metadata == {"signal": 9, "error_message": "out of memory"}
    assert session.tasks["t1"].status == "failed"
    assert session.tasks["t1"].error_message == "The session failed: out of memory"
    assert session.tasks["t2"].status == "pending"
    assert session.current_task_id is None
    assert types_of(session) == ["task_failed", "session_failed"]


@pytest.mark.parametrize("status", ENDED)
def test_what_has_ended_cannot_fail(status: SessionStatus) -> None:
    with pytest.raises(InvalidTransition):
        session_that_is(status).fail(at(9), "again")


def test_a_recovered_session_cannot_fail() -> None:
    with pytest.raises(SessionEnded) as refused:
        recovered().fail(at(9), "again")

    assert refused.value.details["recovered_to"] == "s2"


# Changing


def test_metadata_merges_and_null_removes_a_key() -> None:
    session = new_session(metadata={"a": 1, "b": 2})

    session.update(at(1), metadata={"b": None, "c": {"deep": None}})

    assert session.metadata == {"a": 1, "c": {"deep": None}}


def test_an_empty_task_clears_the_current_one() -> None:
    session = new_session()
    session.update(at(1), current_task_id="t1")
    assert session.current_task_id == "t1"

    session.update(at(2), current_task_id="")

    assert session.current_task_id is None


def test_changing_nothing_records_nothing() -> None:
    session = new_session()
    events_of(session)

    session.update(at(1))

    assert types_of(session) == []


def test_notes_may_be_added_after_the_end() -> None:
    session = session_that_is("failed")

    session.update(at(9), metadata={"post_mortem": "disk"})

    assert session.metadata["post_mortem"] == "disk"


@pytest.mark.parametrize(
    ("make", "error"),
    [(recovered, SessionEnded), (superseded, Superseded), (deleted, SessionNotFound)],
)
def test_a_session_that_lost_its_voice_changes_nothing(
    make: type, error: type[HoldfastError]
) -> None:
    with pytest.raises(error):
        make().update(at(9), metadata={"a": 1})
    with pytest.raises(error):
        make().change_status(at(9), "active")
    with pytest.raises(error):
        make().add_task(at(9), "t9", "more")


def test_everything_that_touches_a_session_refreshes_when_it_changed() -> None:
    session = new_session()

    session.acquire(at(1), "item-7", 4)
    assert session.updated_at == at(1)
    session.give_up(at(2), "item-7")
    assert session.updated_at == at(2)
    session.add_task(at(3), "t1", "compile")
    assert session.updated_at == at(3)


# Recovery


@pytest.mark.parametrize("status", ["failed", "stalled"])
def test_the_failed_and_the_stalled_can_be_recovered(status: SessionStatus) -> None:
    session_that_is(status).require_recoverable(at(9), THRESHOLD_MS)


def test_an_overdue_session_can_be_recovered_before_any_sweep() -> None:
    new_session().require_recoverable(at(181), THRESHOLD_MS)


@pytest.mark.parametrize("status", ["active", "paused", "completed"])
def test_nothing_else_can_be_recovered(status: SessionStatus) -> None:
    with pytest.raises(NotRecoverable) as refused:
        session_that_is(status).require_recoverable(at(9), THRESHOLD_MS)

    assert refused.value.details == {"status": status}


def test_preparing_a_recovery_says_when_and_can_clear_the_machine() -> None:
    session = session_that_is("failed")

    session.prepare_recovery(at(9), clear_machine=True, default_ms=THRESHOLD_MS)

    assert session.metadata["recovery_prepared_at"] == "2026-01-01T12:00:09Z"
    assert session.machine_id is None


def test_recovering_closes_the_original_in_favour_of_its_successor() -> None:
    session = session_that_is("stalled")

    session.recover(at(9), "s2", "m2")

    assert (session.status, session.outcome) == ("completed", "recovered")
    assert session.recovered_to == "s2"
    assert session.completed_at == at(9)
    assert session.metadata["recovery"] == {"outcome": "recovered", "recovered_to": "s2"}


def test_recovering_keeps_when_a_failed_session_ended() -> None:
    session = session_that_is("failed")

    session.recover(at(9), "s2", "m2")

    assert session.completed_at == at(1)


def test_a_second_recovery_must_name_the_same_machine() -> None:
    session = recovered()

    session.require_same_recovery("m2")
    with pytest.raises(AlreadyRecovered) as refused:
        session.require_same_recovery("m3")

    assert refused.value.details == {"recovered_to": "s2", "machine_id": "m2"}


def test_a_successor_inherits_the_clients_metadata_and_not_the_services() -> None:
    session = new_session(metadata={"goal": "moon"})
    session.fail(at(1), "out of memory", {"branch": "main"})
    session.prepare_recovery(at(2), clear_machine=False, default_ms=THRESHOLD_MS)
    session.archive(at(3))

    assert session.inheritance() == {
        "goal": "moon",
        "branch": "main",
        "recovery": {"recovered_from": "s1"},
    }


def test_a_session_that_was_recovered_twice_over_names_its_last_predecessor_only() -> None:
    session = new_session(metadata={"recovery": {"recovered_from": "s0"}})

    assert session.inheritance() == {"recovery": {"recovered_from": "s1"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [("pending", "pending"), ("in_progress", "pending"), ("failed", "pending"),
     ("blocked", "blocked")],
)  # fmt: skip
def test_a_carried_over_task_starts_again_unless_it_is_blocked(before: str, after: str) -> None:
    original = session_with_task(before)
    successor = new_session("s2")

    successor.carry_over(at(9), "t1b", original.tasks["t1"])

    task = successor.tasks["t1b"]
    assert task.status == after
    assert task.carried_from == "t1"
    assert task.task_name == "compile"
    assert task.created_at == at(9)
    assert task.started_at is None
    assert task.error_message is None


# Archiving and deleting


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_session_can_be_archived_once(status: SessionStatus) -> None:
    session = session_that_is(status)
    events_of(session)

    session.archive(at(9))
    session.archive(at(10))

    assert session.archived_at == at(9)
    assert session.metadata["archived"] is True
    assert session.metadata["archived_at"] == "2026-01-01T12:00:09Z"
    assert types_of(session) == ["session_archived"]


@pytest.mark.parametrize("status", sorted(LIVE))
def test_a_live_session_cannot_be_archived(status: SessionStatus) -> None:
    with pytest.raises(NotArchivable) as refused:
        session_that_is(status).archive(at(9))

    assert refused.value.details == {"status": status}


def test_a_tombstone_names_the_tasks_that_go_with_the_session() -> None:
    session = session_with_task("pending")
    session.add_task(at(3), "t2", "test")
    events_of(session)

    session.delete(at(4))

    [tombstone] = events_of(session)
    assert payload_of(tombstone) == {"task_ids": ["t1", "t2"]}
    assert session.is_deleted
    assert session.tasks == {}


def test_what_was_deleted_is_not_there_any_more() -> None:
    session = deleted()

    with pytest.raises(SessionNotFound):
        session.delete(at(9))
    with pytest.raises(SessionNotFound):
        session.archive(at(9))
    with pytest.raises(SessionNotFound):
        session.require_task("t1")
    with pytest.raises(SessionNotFound):
        session.require_recoverable(at(9), THRESHOLD_MS)


# What it holds


def test_a_session_remembers_the_fence_of_what_it_holds() -> None:
    session = new_session()

    session.acquire(at(1), "item-7", 4)
    session.acquire(at(2), "item-8", 1)
    session.give_up(at(3), "item-8")

    assert session.held == {"item-7": 4}


# The stream


def test_a_stream_takes_its_next_event_only() -> None:
    session = new_session()
    [created] = events_of(session)

    with pytest.raises(ValueError, match="1 after 1"):
        session.mutate(created)


def test_the_same_events_give_the_same_session() -> None:
    session = session_with_task("in_progress")
    session.fail(at(5), "out of memory")
    session.recover(at(6), "s2", "m2")

    again = Session(id=session.id)
    for event in events_of(session):
        again.mutate(event)

    assert again == session


def test_a_state_can_be_taken_and_put_back() -> None:
    session = session_with_task("blocked")
    session.acquire(at(5), "item-7", 3)

    assert Session.from_state(session.state()) == session


def test_a_task_that_is_not_there_is_not_found() -> None:
    with pytest.raises(TaskNotFound):
        new_session().require_task("t1")


def test_every_event_is_in_the_table_under_a_name_of_its_own() -> None:
    names = [event.event_type for event in EVENTS]

    assert len(names) == len(set(names))
