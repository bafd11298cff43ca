from __future__ import annotations

import pytest

from domain.claims import claim
from domain.claims.claim import Claim
from domain.errors import ClaimNotFound, StaleFence
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
    assert {k: v for k, v in payload_of(taken).items() if v is not None} == {
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


# Owners, and when a claim may pass on


def test_a_grant_says_where_its_holder_is_and_a_release_forgets_it() -> None:
    it = free()

    it.grant(
        at(0), "session", "s1", hostname="rack-1", tty="pts/1", codebase="/src", machine_id="m"
    )

    assert (it.hostname, it.tty, it.codebase, it.last_machine_id) == (
        "rack-1",
        "pts/1",
        "/src",
        "m",
    )
    it.release(at(1), "s1")
    assert (it.hostname, it.tty, it.codebase) == (None, None, None)
    assert it.last_machine_id == "m"


def test_the_next_owner_s_details_are_its_own() -> None:
    it = free()
    it.grant(at(0), "session", "s1", hostname="rack-1", tty="pts/1", machine_id="m1")

    it.grant(at(1), "instance", "i1", codebase="/src")

    assert (it.hostname, it.tty, it.codebase) == (None, None, "/src")
    # Where it was last worked on, as far as anyone said so.
    assert it.last_machine_id == "m1"


@pytest.mark.parametrize(
    ("silent", "passes"), [(0, False), (299.9, False), (300, False), (300.000001, True)]
)
def test_a_claim_passes_on_once_its_holder_was_silent_for_longer(
    silent: float, passes: bool
) -> None:
    """Spec 5: strictly greater than the threshold."""
    it = free()
    it.grant(at(0), "session", "s1")

    assert it.may_pass_on(at(silent), silent, 300, takeover=True) is passes


def test_a_claim_does_not_pass_on_unasked() -> None:
    it = free()
    it.grant(at(0), "session", "s1")

    assert not it.may_pass_on(at(9_000), 9_000, 300, takeover=False)


def test_a_holder_that_beats_keeps_its_claim_however_old_it_is() -> None:
    it = free()
    it.grant(at(0), "session", "s1")

    assert it.silent_seconds(at(86_400), 12) == 12
    assert not it.may_pass_on(at(86_400), 12, 300, takeover=True)


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_new_claim_never_inherits_the_silence_from_before_it(taken_over: bool) -> None:
    """Spec 6: whoever claims after an hour's silence has the whole time from then on."""
    it = free()
    if taken_over:
        it.grant(at(0), "session", "s0")

    it.grant(at(3_600), "session", "s1")

    assert it.silent_seconds(at(3_610), 3_610) == 10
    assert not it.may_pass_on(at(3_900), 3_900, 300, takeover=True)
    assert it.may_pass_on(at(3_901), 3_901, 300, takeover=True)


def test_a_clock_that_is_behind_makes_no_negative_silence() -> None:
    it = free()
    it.grant(at(10), "session", "s1")

    assert it.silent_seconds(at(5), 0) == 0


# Fences


def test_only_the_holder_s_fence_is_good() -> None:
    it = free()
    with pytest.raises(StaleFence):
        it.require_fence(1)

    first = it.grant(at(0), "session", "s1")
    it.require_fence(first)
    for wrong in (first - 1, first + 1):
        with pytest.raises(StaleFence):
            it.require_fence(wrong)

    second = it.grant(at(1), "session", "s2")
    with pytest.raises(StaleFence) as refusal:
        it.require_fence(first)
    assert refusal.value.details == {
        "item_id": "item-7",
        "given_fence": first,
        "fence": second,
        "holder": "s2",
        "holder_kind": "session",
    }

    it.release(at(2), "s2")
    with pytest.raises(StaleFence):
        it.require_fence(second)


def test_what_nobody_ever_claimed_is_not_there_and_neither_is_a_place() -> None:
    it = free()
    with pytest.raises(ClaimNotFound):
        it.require_claimed_once()
    it.grant(at(0), "session", "s1")
    it.release(at(1), "s1")
    it.require_claimed_once()

    place = free(claim.place("p", "m", None))
    place.grant(at(0), "session", "s1")
    with pytest.raises(ClaimNotFound):
        place.require_claimed_once()
