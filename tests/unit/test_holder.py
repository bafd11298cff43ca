"""What a session or an instance knows of its claims; each claim's stream has the other half."""

from __future__ import annotations

import pytest

from domain.aggregate import iso
from domain.claims.claim import place
from domain.claims.holder import Holder
from domain.instances.instance import Instance
from domain.sessions.session import Session
from tests.support.given import at, new_session, types_of

PLACE = place("apollo", "m1", None)


def new_instance() -> Instance:
    instance = Instance(id=Instance.stream_id("odin-PS-00000a"))
    instance.register(
        at(0), project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    return instance


def beat(holder: Holder, seconds: float) -> None:
    assert isinstance(holder, Session | Instance)
    holder.beat(at(seconds))


@pytest.fixture(params=[new_session, new_instance])
def holder(request: pytest.FixtureRequest) -> Holder:
    made: Holder = request.param()
    return made


def test_what_is_acquired_is_held_under_its_fence_until_it_is_given_up(holder: Holder) -> None:
    holder.acquire(at(1), "a", 3)
    holder.acquire(at(1), "b", 1)
    assert holder.held == {"a": 3, "b": 1}

    holder.give_up(at(2), "a")

    assert holder.held == {"b": 1}
    assert holder.lost_claims == []


def test_a_lost_claim_is_remembered_with_who_took_it_and_when(holder: Holder) -> None:
    holder.acquire(at(1), "a", 3)

    holder.lose(at(9), "a", "s2")

    assert holder.held == {}
    lost = {"item_id": "a", "fence": 3, "taken_by": "s2", "at": iso(at(9))}
    assert holder.lost_claims == [lost]


def test_several_lost_claims_are_told_in_the_order_in_which_they_went(holder: Holder) -> None:
    for item in ("b", "a"):
        holder.acquire(at(1), item, 1)
    for item in ("a", "b"):
        holder.lose(at(2), item, "s2")

    assert [lost["item_id"] for lost in holder.lost_claims] == ["a", "b"]


def test_the_next_heartbeat_clears_what_was_lost(holder: Holder) -> None:
    """Spec 17: told once."""
    holder.acquire(at(1), "a", 1)
    holder.lose(at(2), "a", "s2")

    beat(holder, 3)

    assert holder.lost_claims == []
    beat(holder, 4)
    assert holder.lost_claims == []


def test_what_was_told_once_stays_as_it_was() -> None:
    """A reply holds the list of before the beat: the beat makes a new one."""
    session = new_session()
    session.acquire(at(1), "a", 1)
    session.lose(at(2), "a", "s2")
    told = session.lost_claims

    session.beat(at(3))

    assert len(told) == 1


def test_nothing_but_a_heartbeat_clears_what_was_lost() -> None:
    session = new_session()
    session.acquire(at(1), "a", 1)
    session.lose(at(2), "a", "s2")

    session.update(at(3), "task", {"a": 1})
    session.change_status(at(4), "paused")
    session.change_status(at(5), "active")

    assert [lost["item_id"] for lost in session.lost_claims] == ["a"]


def test_losing_a_place_is_no_lost_claim() -> None:
    session = new_session()
    session.acquire(at(1), PLACE, 1)

    session.lose(at(2), PLACE, "s2")

    assert session.lost_claims == []
    assert session.superseded_by == "s2"


def test_a_failed_session_remembers_the_items_that_it_let_go_of() -> None:
    session = new_session()
    for resource in ("b", PLACE, "a"):
        session.acquire(at(1), resource, 1)
    session.fail(at(2), "out of memory")

    for resource in list(session.held):
        session.give_up(at(2), resource)

    assert session.released_items == ["b", "a"]


def test_so_does_a_session_whose_place_was_taken() -> None:
    session = new_session()
    for resource in (PLACE, "a"):
        session.acquire(at(1), resource, 1)
    session.mark_stalled(at(2))
    session.lose(at(3), PLACE, "s2")

    session.give_up(at(3), "a")

    assert session.released_items == ["a"]


@pytest.mark.parametrize("status", ["active", "paused", "stalled", "completed"])
def test_what_a_session_gives_up_by_itself_is_not_remembered(status: str) -> None:
    session = new_session()
    session.acquire(at(1), "a", 1)
    if status != "active":
        session.change_status(at(2), status)  # type: ignore[arg-type]

    session.give_up(at(3), "a")

    assert session.released_items == []


def test_a_recovery_records_what_could_not_come_back() -> None:
    session = new_session()
    session.fail(at(1), "out of memory")
    lost = [{"item_id": "a", "status": "completed"}]

    session.recover(at(2), "s2", "m2", lost)

    assert session.lost_items == lost
    assert types_of(session)[-1] == "session_recovered"


@pytest.mark.parametrize(
    "end",
    [
        lambda session: session.change_status(at(1), "completed"),
        lambda session: session.fail(at(1), "broken"),
        lambda session: session.delete(at(1)),
        lambda session: session.lose(at(1), PLACE, "s2"),
    ],
    ids=["completed", "failed", "deleted", "superseded"],
)
def test_a_session_that_is_over_holds_nothing_against_others(end: object) -> None:
    session = new_session()
    assert not session.has_ended
    session.acquire(at(0), PLACE, 1)

    end(session)  # type: ignore[operator]

    assert session.has_ended


@pytest.mark.parametrize("status", ["paused", "stalled"])
def test_a_session_that_rests_or_stalls_has_not_ended(status: str) -> None:
    session = new_session()

    session.change_status(at(1), status)  # type: ignore[arg-type]

    assert not session.has_ended


def test_a_closed_instance_has_ended() -> None:
    instance = new_instance()
    assert not instance.has_ended

    instance.close(at(1))

    assert instance.has_ended


def test_where_a_holder_works_is_what_it_said() -> None:
    assert new_session().machine == "m1"
    instance = new_instance()
    assert instance.machine is None
    instance.hostname = "rack-1"
    assert instance.machine == "rack-1"
