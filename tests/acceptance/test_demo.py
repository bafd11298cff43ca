"""The tour of ``make demo`` tells a true story, also where there is no terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_killed_workers_tasks_are_all_finished_on_another_machine() -> None:
    tour = subprocess.run(
        [sys.executable, "-m", "demo.run", "--no-wait"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert tour.returncode == 0, tour.stdout + tour.stderr
    story = [
        r"SIGKILL to worker \d+ on borealis, in the middle of “search block \d”",
        r"Stalled: the service's sweep found session \w+ silent for [\d.]+ s",
        r"reads: Session .* on machine borealis is stalled .* In progress when it stopped: .*",
        r"Recovered: session \w+ on cygnus carries on \w+, with \d tasks left",
        r"Finished: cobalt, on cygnus",
        r"tasks finished +│ 28 of 28",
        r"lost +│ nothing",
    ]
    # One after the other, each where the one before has ended.
    assert re.search(".*?".join(story), tour.stdout, re.DOTALL), tour.stdout
