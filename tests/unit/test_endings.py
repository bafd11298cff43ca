"""What ends, and who may end it: sessions, instances and machines of which nothing is left."""

from __future__ import annotations

import pytest

from domain.claims.claim import place
from domain.errors import (
    MachineInUse,
    MachineNotFound,
    SessionEnded,
    SessionNotFound,
    Superseded,
)
from domain.instances.instance import Instance
from domain.liveness import Serving
from domain.machines.machine import Machine
from domain.sessions.session import Session
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

PLACE = place("apollo", "m1", None)
STALE_SECONDS, DAY = 300, 86_400


def superseded() -> Session:
    """Stalled since second 1; another has its place since second 2."""
    session = session_that_is("stalled")
    session.acquire(at(1), PLACE, 1)
    session.lose(at(2), PLACE, "s2")
    events_of(session)
    return session


def stale() -> Instance:
    """Silent since the start; recorded so after two minutes."""
    instance = Instance(id=Instance.stream_id("odin-PS-00000a"))
    instance.register(
        at(0), project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    instance.note_stale(at(121), 120)
    return instance


# By hand


@pytest.mark.parametrize("status", ["active", "paused", "stalled"])
def test_a_live_session_is_ended(status: str) -> None:
    session = session_that_is(status)  # type: ignore[arg-type]
    events_of(session)

    session.end(at(5), "Its host was sold.")

    [event] = events_of(session)
    assert event.event_type == "session_failed"
    assert (session.status, session.outcome, session.completed_at) == ("failed", "failed", at(5))
    assert session.metadata["error_message"] == "Its host was sold."
    with pytest.raises(SessionEnded):
        session.end(at(6), "Again.")


def test_its_tasks_in_progress_fail_with_it() -> None:
    session = session_with_task("in_progress")
    events_of(session)

    session.end(at(5), "Its host was sold.")

    assert types_of(session) == ["task_failed", "session_failed"]


def test_a_superseded_session_is_ended_and_still_says_who_has_its_place() -> None:
    session = superseded()

    session.end(at(5), "It will not come back.")

    assert (session.status, session.outcome) == ("failed", "superseded")
    with pytest.raises(Superseded):
        session.beat(at(6))
    session.require_recoverable(at(6), THRESHOLD_MS)


def test_what_is_not_there_cannot_be_ended() -> None:
    with pytest.raises(SessionNotFound):
        Session(id="session-nobody").end(at(1), "x")


# By themselves


def test_a_superseded_session_ends_once_it_is_silent_past_the_threshold() -> None:
    session = superseded()

    assert not session.end_passed_on(at(STALE_SECONDS), STALE_SECONDS)
    assert session.end_passed_on(at(STALE_SECONDS + 1), STALE_SECONDS)

    [event] = events_of(session)
    assert payload_of(event)["superseded"] is True
    assert "s2" in payload_of(event)["error_message"]
    assert not session.end_passed_on(at(STALE_SECONDS + 2), STALE_SECONDS)


def test_the_service_s_own_absence_ends_nobody() -> None:
    session = superseded()
    back = Serving(since=at(1_000), absent_since=at(10))

    assert not session.end_passed_on(at(1_000 + STALE_SECONDS), STALE_SECONDS, back)
    assert session.end_passed_on(at(1_001 + STALE_SECONDS), STALE_SECONDS, back)


@pytest.mark.parametrize("status", ["active", "stalled", "completed"])
def test_a_session_that_has_its_place_does_not_end_by_itself(status: str) -> None:
    session = session_that_is(status)  # type: ignore[arg-type]

    assert not session.end_passed_on(at(DAY), STALE_SECONDS)


def test_an_instance_has_passed_on_when_others_have_what_it_had() -> None:
    instance = stale()

    def passed_on(*, has_lost_place: bool = False, after: float = DAY + 1) -> bool:
        return instance.is_passed_on(at(after), DAY, has_lost_place=has_lost_place)

    assert not passed_on()
    assert passed_on(has_lost_place=True)
    assert not passed_on(has_lost_place=True, after=DAY)
    instance.acquire(at(122), "a", 1)
    assert not passed_on(has_lost_place=True)
    instance.lose(at(500), "a", "s2")
    assert passed_on()
    instance.beat(at(DAY))
    assert not passed_on(after=DAY + 1)
    instance.close(at(DAY + 1), reason="It was silent.")
    assert not passed_on(has_lost_place=True, after=3 * DAY)


# Machines


def test_a_machine_on_which_nobody_lives_is_removed_and_registered_anew() -> None:
    machine = Machine(id=Machine.stream_id("m1"))
    machine.register(at(0), "tower", [1], {"gpu": True})
    machine.update(at(1), status="maintenance")

    with pytest.raises(MachineInUse) as refused:
        machine.remove(at(2), ["s1"])
    assert refused.value.details["active_sessions"] == ["s1"]
    machine.remove(at(3), [])

    assert not machine.is_known
    with pytest.raises(MachineNotFound):
        machine.beat(at(4))
    with pytest.raises(MachineNotFound):
        machine.remove(at(4), [])
    machine.require_available()
    machine.require_slot(7)
    events_of(machine)
    machine.register(at(5), "tower", None, {})
    assert types_of(machine) == ["machine_registered"]
    assert (machine.status, machine.docker_slots, machine.metadata) == ("online", None, {})
    assert machine.created_at == at(5)


# What holders hear


@pytest.mark.parametrize("holder", [new_session(), stale()], ids=["session", "instance"])
def test_the_holder_of_a_cancelled_item_is_told_once(holder: Session | Instance) -> None:
    holder.acquire(at(130), "a", 4)

    holder.lose_cancelled(at(140), "a")

    assert holder.held == {}
    [lost] = holder.lost_claims
    assert (lost["item_id"], lost["fence"], lost["taken_by"]) == ("a", 4, None)
    assert lost["reason"] == "cancelled"
    assert not holder.has_ended
    holder.beat(at(150))
    assert holder.lost_claims == []
