from __future__ import annotations

from domain import claim
from domain.claim import Claim
from tests.support.given import at, events_of, payload_of, types_of


def free(resource: str = "item-7") -> Claim:
    return Claim(id=Claim.stream_id(resource))


def test_a_grant_names_the_holder_and_since_when() -> None:
    it = free()

    it.grant(at(3), "session", "s1")

    assert (it.holder_kind, it.holder_id, it.claimed_at) == ("session", "s1", at(3))
    assert it.resource == "item-7"


def test_the_fence_is_the_sequence_number_of_the_grant() -> None:
    it = free()

    assert it.grant(at(0), "session", "s1") == 1
    it.release(at(1), "s1")
    assert it.grant(at(2), "instance", "i1") == 3
    assert it.grant(at(3), "session", "s2") == 4

    grants = [event for event in events_of(it) if event.event_type != "claim_released"]
    assert [event.originator_version for event in grants] == [1, 3, 4]
    assert it.fence == it.version == 4


def test_the_fence_rises_with_every_new_holder() -> None:
    it = free()

    fences = [it.grant(at(n), "session", f"s{n}") for n in range(5)]

    assert fences == sorted(set(fences))


def test_a_takeover_names_who_lost_and_starts_the_time_anew() -> None:
    it = free()
    it.grant(at(0), "session", "s1")
    events_of(it)

    it.grant(at(500), "session", "s2")

    [taken] = events_of(it)
    assert taken.event_type == "claim_taken_over"
    assert payload_of(taken) == {
        "holder_kind": "session",
        "holder_id": "s2",
        "taken_from": "s1",
    }
    assert it.claimed_at == at(500)


def test_a_release_leaves_the_resource_free_and_its_fence_behind() -> None:
    it = free()
    it.grant(at(0), "session", "s1")

    it.release(at(1), "s1")

    assert (it.holder_kind, it.holder_id, it.claimed_at, it.fence) == (None, None, None, 1)


def test_an_old_holder_cannot_release_what_another_holds_now() -> None:
    it = free()
    it.grant(at(0), "session", "s1")
    it.grant(at(1), "session", "s2")
    events_of(it)

    it.release(at(2), "s1")

    assert it.holder_id == "s2"
    assert types_of(it) == []


def test_releasing_what_is_free_changes_nothing() -> None:
    it = free()

    it.release(at(0), "s1")

    assert types_of(it) == []


def test_two_places_never_share_a_name() -> None:
    places = [
        claim.place("a/b", "c", None),
        claim.place("a", "b/c", None),
        claim.place("a%2Fb", "c", None),
        claim.place("a", "c", 1),
        claim.place("a", "c", None),
        claim.place("a", "c/1", None),
        claim.slot("a", 1),
    ]

    assert len(set(places)) == len(places)


def test_places_and_slots_are_not_work() -> None:
    assert claim.is_work_item("item-7")
    assert not claim.is_work_item(claim.place("a", "b", None))
    assert not claim.is_work_item(claim.slot("b", 1))


def test_a_state_can_be_taken_and_put_back() -> None:
    it = free()
    it.grant(at(0), "instance", "i1")

    assert Claim.from_state(it.state()) == it
