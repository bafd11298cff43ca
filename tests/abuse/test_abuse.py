"""``make abuse`` in its short form: what is not time. The long one has the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.abuse.attacks import WITH_A_KEY, WITHOUT_A_KEY
from tests.abuse.run import Outcome, Plan, ordeal

SECONDS = 0.7
# What all of one attack's refusals may leave in the log, in bytes.
MAX_LOG = 256 * 1024


def harmed(directory: Path, names: Sequence[str]) -> list[str]:
    """What each attack did that it should not have been able to do."""
    found: list[str] = []

    def look(outcome: Outcome) -> None:
        found.extend(f"{outcome.name}: {miss}" for miss in outcome.misses(timed=False))
        if outcome.log > MAX_LOG:
            found.append(f"{outcome.name}: {outcome.log} bytes of log")

    ordeal(directory, Plan(names=names, seconds=SECONDS, settle=0), look)
    return found


def test_nobody_is_harmed_by_one_without_a_key(data_dir: Path) -> None:
    """Given each attack in turn, then the memory stays, and no normal request fails."""
    assert harmed(data_dir, list(WITHOUT_A_KEY)) == []


def test_nobody_is_harmed_by_one_with_another_key(data_dir: Path) -> None:
    """Given each attack in turn, then the same."""
    assert harmed(data_dir, list(WITH_A_KEY)) == []
