"""What made a command end: told by what came, and when."""

from __future__ import annotations

import signal

import pytest

from holdfast.happenings import Signalled
from holdfast.interrupts import Interrupts

GRACE = 8.0


@pytest.fixture
def interrupts() -> Interrupts:
    return Interrupts(GRACE)


def ctrl_c(at: float) -> Signalled:
    return Signalled(signal.SIGINT, typed=True, at=at)


def sent(at: float, number: int = signal.SIGTERM) -> Signalled:
    return Signalled(number, typed=False, at=at)


def test_who_heard_nothing_ended_of_its_own_accord(interrupts: Interrupts) -> None:
    interrupts.end(100.0)

    assert interrupts.cause is None


def test_ctrl_c_counts_if_the_end_came_within_the_grace(interrupts: Interrupts) -> None:
    interrupts.note(ctrl_c(100.0))
    interrupts.end(100.0 + GRACE - 0.1)

    assert interrupts.cause == "Ctrl-C"


def test_who_goes_on_after_ctrl_c_and_ends_later_was_not_interrupted(
    interrupts: Interrupts,
) -> None:
    interrupts.note(ctrl_c(100.0))
    interrupts.end(3700.0)

    assert interrupts.cause is None


def test_a_signal_from_elsewhere_counts_however_long_the_end_takes(
    interrupts: Interrupts,
) -> None:
    interrupts.note(sent(100.0, signal.SIGHUP))
    interrupts.end(3700.0)

    assert interrupts.cause == "SIGHUP"


def test_a_signal_to_the_whole_group_may_be_heard_after_the_end(interrupts: Interrupts) -> None:
    interrupts.end(100.0)
    interrupts.note(sent(100.1))

    assert interrupts.cause == "SIGTERM"


def test_what_comes_while_the_leftovers_end_has_ended_nothing(interrupts: Interrupts) -> None:
    interrupts.end(100.0)
    interrupts.note(sent(103.0))
    interrupts.note(ctrl_c(103.0))

    assert interrupts.cause is None


def test_every_attempt_is_judged_by_itself(interrupts: Interrupts) -> None:
    interrupts.note(sent(100.0))
    interrupts.end(100.1)
    interrupts.begin()
    interrupts.end(200.0)

    assert interrupts.cause is None
