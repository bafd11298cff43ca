"""The crash test in its short form; ``make crash-test`` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash.run import Plan, ordeal


def test_what_was_acknowledged_outlives_the_service_and_postgres(data_dir: Path) -> None:
    seed = str(random.SystemRandom().randrange(10**6))

    result = ordeal(data_dir, Plan(service_kills=4, postgres_kills=1, seconds=6, seed=seed))

    assert not {name: found for name, found in result.findings.items() if found}, f"seed {seed}"
    assert result.counts["service kills"] == 4
    assert result.counts["postgres kills"] == 1
    assert result.counts["retried"] > 0
