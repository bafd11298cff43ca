"""Claims as many callers see them at once, in short; ``make lin-test`` is the long form."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson

from tests.crash.victims import Service
from tests.lin import races
from tests.lin.callers import API_KEY
from tests.lin.run import Plan, quarrel
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
REFUSALS = 20


def test_what_callers_are_told_of_a_claim_could_have_happened_one_call_at_a_time(
    running: Sequence[Service],
) -> None:
    """Spec 6: one holder per resource, fences rise, whatever becomes of the service's processes."""
    seed = str(random.SystemRandom().randrange(10**6))

    result = quarrel(running, Plan(operations=1_000, kills=1, pauses=1, seed=seed))

    assert not {name: found for name, found in result.findings.items() if found}, f"seed {seed}"
    assert result.world.counts["kills"] == 1
    assert result.world.counts["pauses"] == 1
    assert sum(operation.anew for operation in result.world.operations) > 20


def test_of_fifty_claimers_at_two_processes_one_wins(urls: list[str]) -> None:
    """S3 FR-1: only one session holds an item; all others hear who."""
    with races.Claimers(urls, API_KEY) as claimers:
        assert races.one_winner_each(claimers, rounds=100) == []


def test_the_next_item_is_given_to_one_of_fifty_callers(urls: list[str]) -> None:
    """Spec 6: claim next; two callers never get the same."""
    with races.Claimers(urls, API_KEY) as claimers:
        assert races.nobody_gets_the_same(claimers) == []


def test_a_holder_that_stood_still_past_its_takeover_writes_nothing_more(urls: list[str]) -> None:
    """Spec 6, fencing: the old holder finds out with its next fenced write."""
    with httpx.Client(headers={"X-API-Key": API_KEY}, trust_env=False) as http:

        def post(path: str, body: Mapping[str, object]) -> httpx.Response:
            return http.post(urls[1] + path, json=body)

        def take_over() -> bool:
            ask = {"item_id": "item", "session_id": new, "takeover": True}
            answers.append(post("/api/claims", ask))
            return answers[-1].is_success

        old, new = (
            post("/api/sessions", {"project_id": who, "machine_id": who}).json()["session_id"]
            for who in ("old", "new")
        )
        fence = post("/api/claims", {"item_id": "item", "session_id": old}).json()["fence"]
        answers: list[httpx.Response] = []
        with _writer(urls[0], API_KEY, old, "item", str(fence), str(REFUSALS)) as writer:
            assert writer.stdout is not None
            assert orjson.loads(writer.stdout.readline())["status"] == 200
            writer.send_signal(signal.SIGSTOP)
            eventually(take_over, "the takeover")
            writer.send_signal(signal.SIGCONT)
            told = [orjson.loads(line) for line in writer.stdout]

        taken = answers[-1]
        taken_at = int(taken.headers["X-Event-Position"])
        assert taken.status_code == 201
        assert taken.json()["fence"] > fence
        refused = [answer for answer in told if answer["status"] != 200]
        assert [(a["status"], a["code"]) for a in refused] == [(409, "stale_fence")] * REFUSALS
        assert told[-REFUSALS:] == refused
        events = http.get(f"{urls[1]}/api/streams/session-{old}/events?limit=1000").json()["events"]
        beats = [e["position"] for e in events if e["event_type"] == "session_heartbeat"]
        assert beats
        assert max(beats) < taken_at
        mine = {"claim": {"item_id": "item", "fence": taken.json()["fence"]}}
        assert post(f"/api/sessions/{new}/heartbeat", mine).status_code == 200


@contextmanager
def _writer(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A holder in a process of its own, which does not outlive the block."""
    command = [sys.executable, "-m", "tests.lin.writer", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
