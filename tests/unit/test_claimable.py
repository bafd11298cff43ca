"""Why an item cannot be claimed: the one rule of the claim by name and of the next item."""

from __future__ import annotations

import pytest

from domain.claims.claim import Claim
from domain.claims.claimable import Obstacle, obstacle
from domain.liveness import Serving
from domain.sessions.session import Session
from tests.support.given import at, new_session, session_that_is


def listed() -> Claim:
    claim = Claim(id=Claim.stream_id("item-7"))
    claim.list_item(at(0))
    return claim


def held_by(session: Session) -> Claim:
    claim = listed()
    claim.grant(at(0), "session", session.key)
    return claim


def why(
    claim: Claim,
    session: Session | None = None,
    seconds: float = 0,
    *,
    takeover: bool = False,
    waits_for: tuple[str, ...] = (),
    serving_since: float | None = None,
) -> Obstacle | None:
    serving = Serving() if serving_since is None else Serving(at(serving_since))
    return obstacle(
        claim,
        session,
        waits_for,
        at(seconds),
        stale_seconds=300,
        takeover=takeover,
        serving=serving,
    )


def test_nothing_is_in_the_way_of_an_open_item() -> None:
    assert why(listed()) is None


def test_nor_of_one_that_nobody_listed() -> None:
    assert why(Claim(id=Claim.stream_id("item-7"))) is None


def test_an_item_that_is_over_is_nobody_s_any_more() -> None:
    cancelled = listed()
    cancelled.cancel(at(1))
    session = new_session()
    completed = held_by(session)
    completed.complete(at(1))
    for claim in (cancelled, completed):
        assert why(claim, takeover=True, waits_for=("item-6",)) == "over"


@pytest.mark.parametrize(
    ("seconds", "takeover", "found"),
    [(0, True, "held"), (300, True, "held"), (301, True, None), (301, False, "held")],
)
def test_a_holder_that_lives_keeps_it_until_it_was_silent_and_is_taken_over(
    seconds: float, takeover: bool, found: Obstacle | None
) -> None:
    session = new_session()
    assert why(held_by(session), session, seconds, takeover=takeover) == found


def test_silence_that_nobody_could_hear_is_none() -> None:
    session = new_session()
    claim = held_by(session)
    assert why(claim, session, 900, takeover=True, serving_since=800) == "held"


def test_a_holder_that_has_ended_is_in_nobody_s_way() -> None:
    session = session_that_is("failed")
    assert why(held_by(session), session, 2) is None


def test_what_waits_for_others_is_blocked_only_where_nothing_else_is_in_the_way() -> None:
    session = new_session()
    assert why(listed(), waits_for=("item-6",)) == "blocked"
    assert why(held_by(session), session, waits_for=("item-6",)) == "held"
