from __future__ import annotations

from typing import Any

import pytest

from domain.claims.claim import Claim
from domain.errors import (
    DependencyCycle,
    InvalidTransition,
    ItemCancelled,
    ItemCompleted,
    WorkItemNotFound,
)
from tests.support.given import at, events_of, payload_of, types_of


def unlisted(item_id: str = "item-7") -> Claim:
    return Claim(id=Claim.stream_id(item_id))


def listed(**described: Any) -> Claim:
    it = unlisted()
    it.list_item(at(0), **described)
    events_of(it)
    return it


def held() -> Claim:
    it = listed(title="Seven")
    it.grant(at(1), "session", "s1")
    events_of(it)
    return it


def completed() -> Claim:
    it = held()
    it.complete(at(2))
    events_of(it)
    return it


def test_what_nobody_listed_is_no_item() -> None:
    with pytest.raises(WorkItemNotFound):
        unlisted().require_listed()


def test_a_listed_item_is_open_and_described() -> None:
    it = unlisted()

    it.list_item(at(3), title="Seven", track="A", priority=-2, depends_on=["item-6"])

    item = it.require_listed()
    assert (item.title, item.track, item.priority) == ("Seven", "A", -2)
    assert (item.depends_on, item.created_at, item.updated_at) == (["item-6"], at(3), at(3))
    assert it.status == "open"
    assert types_of(it) == ["work_item_listed"]


def test_an_item_without_a_description_says_so_with_nothing() -> None:
    it = unlisted()

    it.list_item(at(0))

    [event] = events_of(it)
    assert set(payload_of(event).values()) == {None}
    assert it.require_listed().priority == 0


def test_another_description_replaces_the_one_before() -> None:
    it = listed(title="Seven", track="A", priority=2, depends_on=["item-6"])

    it.list_item(at(9), title="Eight")

    item = it.require_listed()
    assert (item.title, item.track, item.priority, item.depends_on) == ("Eight", None, 0, [])
    assert (item.created_at, item.updated_at) == (at(0), at(9))


def test_the_same_description_records_nothing() -> None:
    it = listed(title="Seven", priority=2, depends_on=["a", "b"])

    it.list_item(at(9), title="Seven", priority=2, depends_on=("a", "b"))
    assert types_of(it) == []
    it.list_item(at(9), title="Seven", priority=2, depends_on=("b", "a"))
    assert types_of(it) == ["work_item_listed"]


def test_an_item_does_not_wait_for_itself() -> None:
    it = unlisted()

    with pytest.raises(DependencyCycle):
        it.list_item(at(0), depends_on=["item-6", "item-7"])

    assert types_of(it) == []


def test_a_held_item_is_claimed_and_stays_so_when_described_anew() -> None:
    it = held()

    it.list_item(at(5), title="Other")

    assert (it.status, it.holder_id, it.fence) == ("claimed", "s1", 2)


def test_everything_that_happens_to_an_item_refreshes_when_it_changed() -> None:
    it = listed()

    it.grant(at(1), "session", "s1")
    assert it.require_listed().updated_at == at(1)
    it.grant(at(2), "session", "s2")
    assert it.require_listed().updated_at == at(2)
    it.release(at(3), "s2")
    assert it.require_listed().updated_at == at(3)
    it.grant(at(4), "session", "s3")
    it.complete(at(5))
    assert it.require_listed().updated_at == at(5)
    assert it.require_listed().created_at == at(0)


def test_completing_ends_the_item_and_frees_its_holder() -> None:
    it = held()

    it.complete(at(7), ["item-6"])

    done, released = events_of(it)
    assert (done.event_type, released.event_type) == ("work_item_completed", "claim_released")
    assert payload_of(done) == {
        "holder_kind": "session",
        "completed_by": "s1",
        "open_dependencies": ["item-6"],
    }
    item = it.require_listed()
    assert item.open_dependencies == ["item-6"]
    assert (item.completed_at, item.completed_by) == (at(7), "s1")
    assert (it.status, it.holder_id) == ("completed", None)


def test_a_completed_item_is_open_to_nobody() -> None:
    it = completed()

    with pytest.raises(ItemCompleted) as refusal:
        it.require_open()

    assert refusal.value.details == {
        "item_id": "item-7",
        "completed_by": "s1",
        "completed_at": at(2),
    }


@pytest.mark.parametrize("make", [listed, held])
def test_what_is_not_completed_is_open(make: Any) -> None:
    make().require_open()


def test_a_state_with_an_item_can_be_taken_and_put_back() -> None:
    it = completed()

    assert Claim.from_state(it.state()) == it


def test_a_cancelled_item_is_free_and_open_to_nobody() -> None:
    it = held()

    it.cancel(at(7), "Nobody wants it.")
    it.cancel(at(8), "Again.")

    cancelled, released = events_of(it)
    assert (cancelled.event_type, released.event_type) == ("work_item_cancelled", "claim_released")
    assert payload_of(cancelled) == {"reason": "Nobody wants it."}
    assert (it.status, it.is_settled, it.holder_id) == ("cancelled", True, None)
    with pytest.raises(ItemCancelled):
        it.require_open()


@pytest.mark.parametrize("how", ["completed", "cancelled"])
def test_what_is_over_is_open_once_it_is_reopened(how: str) -> None:
    it = completed() if how == "completed" else held()
    if how == "cancelled":
        it.cancel(at(3))
    events_of(it)

    it.reopen(at(7), "It was not done well.")

    [event] = events_of(it)
    assert payload_of(event) == {"reason": "It was not done well."}
    item = it.require_listed()
    assert (it.status, it.is_settled) == ("open", False)
    assert (item.completed_at, item.cancelled_at, item.completed_by) == (None, None, None)
    it.require_open()
    with pytest.raises(InvalidTransition):
        it.reopen(at(8), "Again.")


def test_a_completed_item_is_not_cancelled() -> None:
    it = completed()
    with pytest.raises(ItemCompleted):
        it.cancel(at(7))


def test_a_removed_item_is_unknown_until_it_is_listed_again() -> None:
    it = completed()
    fence = it.fence

    it.remove(at(7))

    assert (it.status, it.is_settled, it.item) == ("removed", True, None)
    with pytest.raises(WorkItemNotFound):
        it.require_listed()
    it.list_item(at(8))
    assert (it.status, it.is_settled) == ("open", False)
    assert it.grant(at(9), "session", "s2") > fence
