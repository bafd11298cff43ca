from __future__ import annotations

import pytest

from domain.errors import InvalidTransition, SessionEnded, Superseded
from domain.sessions.session import Session
from domain.sessions.task import TASK_STATUSES, TRANSITIONS, TaskStatus
from tests.support.given import at, events_of, new_session, session_with_task, types_of

# As the specification says it, from section 7, and not as the code does.
ALLOWED: set[tuple[TaskStatus, TaskStatus]] = {
    ("pending", "in_progress"),
    ("pending", "completed"),
    ("pending", "failed"),
    ("pending", "blocked"),
    ("in_progress", "completed"),
    ("in_progress", "failed"),
    ("in_progress", "blocked"),
    ("blocked", "pending"),
    ("blocked", "in_progress"),
    ("blocked", "completed"),
    ("blocked", "failed"),
    ("completed", "blocked"),
    ("failed", "blocked"),
}
# To say again what is so already is no transition; for what is finished it is an error.
REPEATED: set[tuple[TaskStatus, TaskStatus]] = {
    ("pending", "pending"),
    ("in_progress", "in_progress"),
    ("blocked", "blocked"),
}
EVERY = [(before, after) for before in TASK_STATUSES for after in TASK_STATUSES]


def move(session: Session, to: TaskStatus) -> None:
    session.update_task(at(9), "t1", to, "because" if to == "failed" else None)


@pytest.mark.parametrize(("before", "after"), sorted(ALLOWED))
def test_a_task_moves_on(before: TaskStatus, after: TaskStatus) -> None:
    session = session_with_task(before)

    move(session, after)

    assert session.tasks["t1"].status == after
    assert session.tasks["t1"].updated_at == at(9)


@pytest.mark.parametrize(("before", "after"), sorted(set(EVERY) - ALLOWED - REPEATED))
def test_a_task_moves_no_other_way(before: TaskStatus, after: TaskStatus) -> None:
    session = session_with_task(before)
    events_of(session)

    with pytest.raises(InvalidTransition) as refused:
        move(session, after)

    assert refused.value.details == {"task_id": "t1", "from": before, "to": after}
    assert types_of(session) == []


@pytest.mark.parametrize(("before", "after"), sorted(REPEATED))
def test_a_live_status_given_again_only_annotates(before: TaskStatus, after: TaskStatus) -> None:
    session = session_with_task(before)
    events_of(session)

    session.update_task(at(9), "t1", after)
    assert types_of(session) == []
    session.update_task(at(9), "t1", after, metadata={"percent": 40})

    assert types_of(session) == ["task_updated"]
    assert session.tasks["t1"].metadata == {"percent": 40}


def test_the_domains_table_is_the_specifications() -> None:
    assert {(a, b) for a, targets in TRANSITIONS.items() for b in targets} == ALLOWED


def test_a_new_task_is_pending() -> None:
    session = new_session()

    session.add_task(at(1), "t1", "compile", "42", {"tries": 1, "none": None})

    task = session.tasks["t1"]
    assert (task.status, task.task_name, task.github_issue_id) == ("pending", "compile", "42")
    assert task.metadata == {"tries": 1}
    assert task.created_at == task.updated_at == at(1)
    assert task.started_at is None


def test_a_task_in_progress_is_the_sessions_current_one() -> None:
    session = session_with_task("in_progress")

    assert session.current_task_id == "t1"
    assert session.tasks["t1"].started_at == at(2)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_finished_task_is_nobodys_current_one(status: TaskStatus) -> None:
    session = session_with_task("in_progress")

    move(session, status)

    assert session.current_task_id is None
    assert session.tasks["t1"].started_at == at(2)
    assert session.tasks["t1"].completed_at == at(9)


def test_finishing_one_task_leaves_another_the_current_one() -> None:
    session = session_with_task("in_progress")
    session.add_task(at(3), "t2", "test")
    session.update_task(at(4), "t2", "in_progress")

    move(session, "completed")

    assert session.current_task_id == "t2"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_task_that_finishes_directly_has_started_then_too(status: TaskStatus) -> None:
    session = session_with_task("pending")

    move(session, status)

    assert session.tasks["t1"].started_at == session.tasks["t1"].completed_at == at(9)


def test_a_blocked_task_is_not_finished_any_more() -> None:
    session = session_with_task("failed")

    session.update_task(at(9), "t1", "blocked", "waiting for disk")

    assert session.tasks["t1"].completed_at is None
    assert session.tasks["t1"].error_message == "waiting for disk"


def test_moving_on_forgets_the_old_error() -> None:
    session = session_with_task("blocked")
    session.update_task(at(3), "t1", "failed", "no disk")
    session.update_task(at(4), "t1", "blocked")

    session.update_task(at(5), "t1", "pending")

    assert session.tasks["t1"].error_message is None
    assert session.tasks["t1"].status == "pending"


def test_notes_can_be_added_to_a_finished_task() -> None:
    session = session_with_task("completed")

    session.update_task(at(9), "t1", metadata={"report": "green"})

    assert session.tasks["t1"].metadata == {"report": "green"}
    assert session.tasks["t1"].completed_at == at(2)


def test_a_deleted_task_is_gone_and_nobodys_current_one() -> None:
    session = session_with_task("in_progress")

    session.delete_task(at(9), "t1")

    assert session.tasks == {}
    assert session.current_task_id is None


def test_a_task_of_an_ended_session_stays_as_it_is() -> None:
    session = session_with_task("pending")
    session.change_status(at(3), "completed")

    with pytest.raises(SessionEnded):
        move(session, "in_progress")


def test_a_task_of_a_superseded_session_stays_as_it_is() -> None:
    session = session_with_task("pending")
    session.mark_stalled(at(3))
    session.lose(at(4), "@place/apollo/m1/", "s2")

    with pytest.raises(Superseded):
        move(session, "in_progress")


def test_tasks_are_found_by_status_in_the_order_in_which_they_were_added() -> None:
    session = new_session()
    for number in range(3):
        session.add_task(at(number), f"t{number}", "step")
    session.update_task(at(9), "t1", "completed")

    assert [task.task_id for task in session.tasks_in("pending")] == ["t0", "t2"]
    assert [task.task_id for task in session.tasks_in("pending", "completed")] == [
        "t0",
        "t1",
        "t2",
    ]
