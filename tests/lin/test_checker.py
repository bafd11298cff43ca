"""The checker of histories: what it accepts, what it rejects, and that it does neither blindly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.lin import history
from tests.lin.checker import Violation, check
from tests.lin.correct import ITEM, Call, CorrectClaims
from tests.lin.history import NEVER, Operation, Sign, Verb, Vitals
from tests.lin.model import Claims, Register

STALE_SECONDS = 5.0


class Story:
    """A history told call by call.

    Unless told otherwise, a call lasts from one whole second to half past it: none overlaps the
    next.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.signs: list[Sign] = []
        self._clock = 0.0

    def add(
        self,
        verb: Verb,
        holder: str | None = None,
        *,
        at: tuple[float, float] = (0, 0),
        **told: Any,
    ) -> None:
        invoked, answered = at if any(at) else self._next()
        told.setdefault("outcome", "refused" if "code" in told else "ok")
        self.operations.append(
            Operation(
                item=ITEM, verb=verb, holder=holder, invoked=invoked, answered=answered, **told
            )
        )

    def claim(self, holder: str, fence: int, **more: Any) -> None:
        """A claim that is granted."""
        more = {"verb": "claim", "anew": True, **more}
        self.add(holder=holder, seen_holder=holder, seen_fence=fence, **more)

    def held(self, holder: str, owner: str, fence: int, **more: Any) -> None:
        """A claim that is refused, naming the owner."""
        more = {"verb": "claim", "code": "claim_held", **more}
        self.add(holder=holder, seen_holder=owner, seen_fence=fence, **more)

    def lost(self, verb: Verb, holder: str, fence: int | None = None) -> None:
        """A call whose answer never came."""
        invoked, _ = self._next()
        self.add(verb, holder, at=(invoked, NEVER), fence=fence, outcome="unknown")

    def beat(self, holder: str) -> None:
        invoked, answered = self._next()
        self.signs.append(Sign(holder=holder, invoked=invoked, answered=answered))

    def wait(self, seconds: float) -> None:
        self._clock += seconds

    def violation(self) -> Violation | None:
        return check(self.operations, Claims(Vitals(self.signs), STALE_SECONDS))

    def _next(self) -> tuple[float, float]:
        self._clock += 1
        return self._clock, self._clock + 0.5


@pytest.fixture
def story() -> Story:
    return Story()


# What is right


def test_a_claim_goes_from_one_holder_to_the_next(story: Story) -> None:
    story.claim("a", 1)
    story.claim("a", 1, anew=False)
    story.held("b", "a", 1)
    story.add("verify", fence=1, seen_holder="a")
    story.add("write", "a", fence=1)
    story.add("release", "a", fence=1, seen_fence=1)
    story.add("read", seen_holder=None, seen_fence=1)
    story.add("verify", fence=1, code="stale_fence", seen_fence=1)
    story.claim("b", 3)
    story.add("release", "a", code="not_holder", seen_holder="b", seen_fence=3)
    story.add("write", "a", fence=1, code="stale_fence", seen_holder="b", seen_fence=3)
    story.add("end", "b")
    story.add("claim", "b", code="session_ended")
    story.claim("a", 5)

    assert story.violation() is None


def test_calls_that_overlap_may_have_happened_in_either_order(story: Story) -> None:
    story.claim("a", 1, at=(1, 4))
    story.held("b", "a", 1, at=(2, 3))
    story.add("release", "a", at=(5, 9))
    story.add("read", seen_holder=None, seen_fence=1, at=(6, 7))
    story.claim("b", 3, at=(6, 8))

    assert story.violation() is None


def test_a_silent_holder_may_be_taken_over(story: Story) -> None:
    story.claim("a", 1)
    story.beat("a")
    story.wait(STALE_SECONDS)
    story.claim("b", 2, verb="take over")
    story.add("release", "a", code="not_holder", seen_holder="b", seen_fence=2)

    assert story.violation() is None


def test_a_lost_answer_explains_what_came_of_it(story: Story) -> None:
    story.lost("claim", "a")
    story.held("b", "a", 4)
    story.lost("release", "a", fence=4)
    story.claim("b", 6)

    assert story.violation() is None


def test_a_lost_answer_may_stand_for_something_that_happens_much_later(story: Story) -> None:
    story.claim("a", 1)
    story.lost("release", "a", fence=1)
    story.held("b", "a", 1)
    story.held("b", "a", 1)
    story.claim("b", 3)

    assert story.violation() is None


def test_a_lost_answer_may_stand_for_nothing(story: Story) -> None:
    story.lost("claim", "a")
    story.claim("b", 1)
    story.add("release", "b", seen_fence=1)
    story.add("read", seen_holder=None, seen_fence=1)

    assert story.violation() is None


# What is wrong


def test_two_winners_at_once_are_rejected(story: Story) -> None:
    story.claim("a", 1, at=(1, 5))
    story.claim("b", 2, at=(2, 6))

    assert (found := story.violation()) is not None
    assert found.operation is story.operations[1]
    assert found.registers == [Register("a", 1, granted=(1, 5))]
    assert "held by a, fence 1" in str(found)


def test_a_fence_that_does_not_rise_is_rejected(story: Story) -> None:
    story.claim("a", 3)
    story.add("release", "a", seen_fence=3)
    story.claim("b", 3)

    assert story.violation() is not None


def test_a_fence_that_does_not_rise_over_a_lost_grant_is_rejected(story: Story) -> None:
    story.claim("a", 3)
    story.add("release", "a", seen_fence=3)
    story.lost("claim", "b")
    story.add("release", "b")
    story.claim("c", 4)

    assert story.violation() is not None


@pytest.mark.parametrize("verb", ["verify", "write"])
def test_a_stale_fence_that_is_accepted_is_rejected(story: Story, verb: Verb) -> None:
    story.claim("a", 1)
    story.add("release", "a")
    story.claim("b", 3)
    story.add(verb, "a", fence=1)

    assert story.violation() is not None


@pytest.mark.parametrize("verb", ["verify", "write"])
def test_a_fence_accepted_after_the_release_is_rejected(story: Story, verb: Verb) -> None:
    story.claim("a", 1)
    story.add("release", "a")
    story.add(verb, "a", fence=1)

    assert story.violation() is not None


def test_a_current_fence_that_is_refused_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("verify", fence=1, code="stale_fence", seen_holder="a", seen_fence=1)

    assert story.violation() is not None


def test_a_release_by_another_that_is_accepted_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("release", "b")

    assert story.violation() is not None


def test_a_release_under_an_old_fence_that_is_accepted_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("release", "a")
    story.claim("a", 3)
    story.add("release", "a", fence=1)

    assert story.violation() is not None


def test_a_release_refused_to_the_holder_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("release", "a", code="not_holder", seen_holder="a", seen_fence=1)

    assert story.violation() is not None


def test_a_grant_that_is_lost_after_it_was_acknowledged_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.claim("b", 2)

    assert story.violation() is not None


def test_a_grant_that_nobody_sees_after_it_was_acknowledged_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("read", seen_holder=None, seen_fence=0)

    assert story.violation() is not None


def test_a_release_that_is_undone_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("release", "a")
    story.held("b", "a", 1)

    assert story.violation() is not None


def test_a_refusal_that_names_somebody_who_never_held_it_is_rejected(story: Story) -> None:
    story.held("b", "a", 1, at=(1, 9))
    story.claim("c", 1, at=(2, 8))

    assert story.violation() is not None


def test_a_refusal_on_account_of_oneself_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.held("a", "a", 1)

    assert story.violation() is not None


def test_a_second_grant_of_what_one_holds_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.claim("a", 2)

    assert story.violation() is not None


def test_a_grant_to_a_holder_that_has_ended_is_rejected(story: Story) -> None:
    story.add("end", "a")
    story.claim("a", 1)

    assert story.violation() is not None


def test_a_claim_that_outlives_its_holder_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.add("end", "a")
    story.held("b", "a", 1)

    assert story.violation() is not None


def test_a_refusal_as_ended_of_a_holder_that_lives_is_rejected(story: Story) -> None:
    story.add("claim", "a", code="session_ended")

    assert story.violation() is not None


def test_a_plain_claim_that_takes_over_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.wait(STALE_SECONDS)
    story.claim("b", 2)

    assert story.violation() is not None


def test_a_takeover_of_a_holder_that_beats_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.wait(STALE_SECONDS)
    story.beat("a")
    story.claim("b", 2, verb="take over")

    assert story.violation() is not None


def test_a_takeover_of_a_claim_that_is_new_is_rejected_however_long_its_holder_was_silent(
    story: Story,
) -> None:
    story.beat("a")
    story.wait(2 * STALE_SECONDS)
    story.claim("a", 1)
    story.claim("b", 2, verb="take over")

    assert story.violation() is not None


def test_a_takeover_by_a_lost_answer_needs_a_silent_holder_too(story: Story) -> None:
    story.claim("a", 1)
    story.lost("take over", "b")
    story.beat("a")
    story.add("read", seen_holder="b", seen_fence=2)

    assert story.violation() is not None


def test_a_takeover_refused_though_the_holder_is_silent_is_rejected(story: Story) -> None:
    story.claim("a", 1)
    story.beat("a")
    story.wait(STALE_SECONDS + 1)
    story.held("b", "a", 1, verb="take over")

    assert story.violation() is not None


def test_clocks_may_differ_by_the_slack(story: Story) -> None:
    story.claim("a", 1)
    story.wait(STALE_SECONDS - 2)
    story.claim("b", 2, verb="take over")

    assert story.violation() is not None
    assert check(story.operations, Claims(Vitals([]), STALE_SECONDS, slack=1.0)) is None


def test_an_answer_that_nobody_knows_is_rejected(story: Story) -> None:
    story.add("claim", "a", code="something_else")

    assert story.violation() is not None


def test_a_recording_is_read_as_it_was_written(story: Story, tmp_path: Path) -> None:
    story.claim("a", 1)
    story.lost("release", "a", fence=1)
    story.beat("a")

    history.write(tmp_path / "recording", [*story.operations, *story.signs])

    assert list(history.read(tmp_path / "recording")) == [*story.operations, *story.signs]


# Histories that nobody thought up

HOLDERS = ("a", "b", "c")
VERBS: tuple[Any, ...] = (*["claim", "take over"] * 2, "release", "end", "verify", "write", "read")


def calls(most: int) -> st.SearchStrategy[list[Call]]:
    """Some calls of a few holders, a second apart or longer, that overlap a good deal."""
    one = st.tuples(
        st.sampled_from((*VERBS, "beat", "beat")),
        st.sampled_from(HOLDERS),
        st.sampled_from((1.0, 1.0, 1.0, STALE_SECONDS)),
        st.floats(0, 3),
        st.floats(0, 3),
        st.sampled_from((0, 0, 0, 1)),
        st.sampled_from((False, False, False, True)),
    )
    return st.lists(one, min_size=1, max_size=most).map(_in_time)


def _in_time(drawn: Sequence[tuple[Any, ...]]) -> list[Call]:
    at = 10.0
    made = []
    for verb, holder, gap, *rest in drawn:
        at += gap
        made.append(Call(verb, holder, at, *rest))
    return made


def by_definition(operations: Sequence[Operation], claims: Claims) -> bool:
    """Linearizable if there is an order: try them all, with nothing clever about it."""

    def ordered(register: Register, left: list[Operation]) -> bool:
        now = min((o.answered for o in left), default=NEVER)
        if now == NEVER:
            return True
        for number, operation in enumerate(left):
            if operation.invoked <= now:
                then = claims.step(register, operation, now)
                if then is not None and ordered(then, left[:number] + left[number + 1 :]):
                    return True
        return False

    return ordered(Register(), list(operations))


@given(calls(most=60))
def test_whatever_correct_claims_do_is_accepted(made: list[Call]) -> None:
    correct = CorrectClaims(STALE_SECONDS)
    correct.run(made)

    assert check(correct.operations, Claims(Vitals(correct.signs), STALE_SECONDS)) is None


@given(calls(most=7), st.randoms(use_true_random=False))
def test_the_verdict_on_a_history_that_was_tampered_with_is_that_of_trying_all_orders(
    made: list[Call], chance: random.Random
) -> None:
    correct = CorrectClaims(STALE_SECONDS)
    correct.run(made)
    claims = Claims(Vitals(correct.signs), STALE_SECONDS)
    tampered = tamper(correct.operations, chance)

    accepted = by_definition(tampered, claims)

    event(f"accepted: {accepted}")
    assert (check(tampered, claims) is None) is accepted


def tamper(operations: Sequence[Operation], chance: random.Random) -> list[Operation]:
    """The same history with other answers to one or two calls."""
    changed = list(operations)
    for _ in range(chance.choice((1, 1, 2))):
        answered = [n for n, o in enumerate(changed) if o.outcome != "unknown"]
        if not answered:
            break
        number = chance.choice(answered)
        changed[number] = _otherwise(changed[number], chance)
    return changed


def _otherwise(operation: Operation, chance: random.Random) -> Operation:
    holder = chance.choice([*HOLDERS, None])
    fence = chance.randint(0, 6)
    match chance.choice(("holder", "fence", "outcome", "outcome")):
        case "holder":
            return replace(operation, seen_holder=holder)
        case "fence":
            return replace(operation, seen_fence=fence)
    if operation.outcome == "refused":
        told: dict[str, Any] = {"seen_holder": operation.holder, "seen_fence": fence}
        anew = operation.verb in ("claim", "take over")
        return replace(operation, outcome="ok", code=None, anew=anew, **told)
    codes = {"claim": "claim_held", "take over": "claim_held", "release": "not_holder"}
    code = codes.get(operation.verb, "stale_fence")
    return replace(
        operation, outcome="refused", code=code, anew=False, seen_holder=holder, seen_fence=fence
    )


def test_both_verdicts_are_common_among_histories_that_were_tampered_with() -> None:
    """Else comparing them would show little."""
    chance = random.Random(1)
    verdicts = Counter(
        check(tamper(operations, chance), claims) is None
        for operations, claims in (_at_random(chance, 7) for _ in range(500))
    )

    assert min(verdicts.values()) > 50, verdicts


def test_twenty_thousand_operations_with_lost_answers_are_checked() -> None:
    operations, claims = _at_random(random.Random(1), 26_000, lost=0.005)

    assert len(operations) > 20_000
    assert check(operations, claims) is None


def _at_random(
    chance: random.Random, number: int, lost: float = 0.2
) -> tuple[list[Operation], Claims]:
    """A history of correct claims. Holders that have ended make room for new ones."""
    at = 10.0
    made = []
    names = dict(enumerate(HOLDERS))
    for n in range(number):
        at += chance.choice((1.0, 1.0, 1.0, STALE_SECONDS))
        which = chance.randrange(len(names))
        verb = chance.choice((*VERBS, "beat", "beat"))
        before, after = chance.uniform(0, 3), chance.uniform(0, 3)
        back = chance.choice((0, 0, 0, 1))
        made.append(Call(verb, names[which], at, before, after, back, chance.random() < lost))
        if verb == "end":
            names[which] = f"{n}"
    correct = CorrectClaims(STALE_SECONDS)
    correct.run(made)
    return correct.operations, Claims(Vitals(correct.signs), STALE_SECONDS)
