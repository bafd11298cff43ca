"""Have many quarrel over few items while the service dies and stalls, then check what they saw.

    python -m tests.lin.run [--operations N] [--kills N] [--pauses N] [--races N] [--seed SEED]

Two processes of the service work on one database. Callers claim, take over, release, verify, write
under fences and read; their sessions and instances beat, fall silent and end. Meanwhile SIGKILL
takes one process or the other, or SIGSTOP holds it for longer than it takes to be thought dead.
All that callers were told is then held against what one claim at a time could have told them.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.crash.victims import Service
from tests.lin import history, races
from tests.lin.callers import API_KEY, ITEMS, Caller, World
from tests.lin.checker import Undecided, check
from tests.lin.history import Operation, Vitals
from tests.lin.model import Claims
from tests.support.waiting import eventually

CALLERS = 16
SERVICES = 2
STALE_SECONDS = 1.0
# By how much two processes may disagree about the time: that of a message from the database.
SLACK_SECONDS = 0.25
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.05

SETTINGS: Mapping[str, str] = {
    "API_KEYS": API_KEY,
    "STALL_THRESHOLD_MS": "600",
    "INSTANCE_STALE_SECONDS": "0.6",
    "CLAIM_STALE_SECONDS": str(STALE_SECONDS),
    "SWEEP_SECONDS": "0.5",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much there is to do, and how often the service dies or stands still meanwhile."""

    operations: int
    kills: int
    pauses: int
    seed: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was done, and what is wrong with it."""

    world: World
    findings: Mapping[str, Sequence[str]]


# Told now and then what has happened so far.
Watcher = Callable[[World], None]


@contextmanager
def services(url: str, directory: Path, settings: Mapping[str, str]) -> Iterator[list[Service]]:
    """Processes of the service on one database, serving."""
    with ExitStack() as stack:
        running = []
        for number in range(SERVICES):
            log = directory / f"service-{number}.log"
            service = Service({**settings, "DATABASE_URL": url}, log)
            stack.callback(service.stop)
            service.start()
            running.append(service)
        for service in running:
            eventually(service.answers, f"a process serving on port {service.port}")
        yield running


def quarrel(running: Sequence[Service], plan: Plan, watch: Watcher = lambda _: None) -> Result:
    """Go through with the plan, on items that nobody has claimed before."""
    world = World([service.url for service in running], STALE_SECONDS, SLACK_SECONDS)
    before = _intervals(running[0])
    with _callers(world, plan.seed):
        _torment(plan, world, running, watch)
    world.was_absent = _intervals(running[0]) > before
    findings = {item: verdict(found, world) for item, found in _checked(world).items()}
    return Result(world, {**findings, "other answers": world.broken, "dates": world.misdated})


def _intervals(service: Service) -> int:
    """How often the service has come to be there so far."""
    eventually(service.answers, f"a process serving on port {service.port}")
    told = httpx.get(
        f"{service.url}/api/serving", headers={"X-API-Key": API_KEY}, timeout=30, trust_env=False
    )
    return int(told.json()["total_count"])


def surprises(running: Sequence[Service]) -> list[str]:
    """Processes that ended by themselves."""
    return [
        f"a process of the service ended with exit code {code}, and nobody had killed it"
        for service in running
        for code in service.surprises
    ]


def verdict(operations: Sequence[Operation], world: World) -> list[str]:
    """What is wrong with one item's history."""
    vitals = Vitals(world.signs)
    claims = Claims(vitals, STALE_SECONDS, SLACK_SECONDS, was_absent=world.was_absent)
    try:
        violation = check(operations, claims)
    except Undecided as undecided:
        return [str(undecided)]
    return [str(violation)] if violation else []


def _checked(world: World) -> Mapping[str, Sequence[Operation]]:
    found = history.by_item(world.operations)
    return {item: found.get(item, []) for item in ITEMS}


@contextmanager
def _callers(world: World, seed: str) -> Iterator[None]:
    """Callers that quarrel for the length of the block, and finish what they have begun."""
    callers = [Caller(world, f"{seed}/{number}", number % SERVICES) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        world.stopping.set()
        for caller in callers:
            caller.join()
    for caller in callers:
        if caller.error is not None:
            raise caller.error


def _torment(plan: Plan, world: World, running: Sequence[Service], watch: Watcher) -> None:
    chance = random.Random(plan.seed)
    blows = ["kills"] * plan.kills + ["pauses"] * plan.pauses
    chance.shuffle(blows)
    each = plan.operations // (len(blows) + 1)
    for number, blow in enumerate(blows, 1):
        _let_call(world, number * each, watch)
        victim = chance.choice(running)
        if blow == "kills":
            victim.kill()
        else:
            with victim.paused():
                time.sleep(STALE_SECONDS * chance.uniform(0.3, 2.5))
        world.counts[blow] += 1
    _let_call(world, plan.operations, watch)


def _let_call(world: World, calls: int, watch: Watcher) -> None:
    """Wait until this many calls were recorded."""
    before, since = world.calls, time.monotonic()
    while world.calls < calls:
        if world.calls > before:
            before, since = world.calls, time.monotonic()
        if time.monotonic() > since + PATIENCE_SECONDS:
            raise AssertionError(f"no call was answered for {PATIENCE_SECONDS:g} s")
        watch(world)
        time.sleep(LOOK_SECONDS)
    watch(world)


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it once, and show what came of it: 0 when everything is good."""
    options = _options(arguments)
    plan = Plan(
        operations=options.operations,
        kills=options.kills,
        pauses=options.pauses,
        seed=options.seed,
    )
    console = Console()
    console.print(
        f"{SERVICES} processes of the service, {CALLERS} callers, {len(ITEMS)} items;"
        f" {plan.kills} kills, {plan.pauses} pauses; seed {plan.seed}",
        highlight=False,
    )
    directory = Path(tempfile.mkdtemp(prefix="holdfast-lin-", dir="/tmp"))
    directory.chmod(0o711)
    start = time.monotonic()
    with EmbeddedPostgres(directory) as postgres:
        with (
            services(postgres.url, directory, SETTINGS) as running,
            _progress(console, plan) as watch,
        ):
            result = quarrel(running, plan, watch)
            history.write(directory / "recording", [*result.world.operations, *result.world.signs])
            raced = races.findings(result.world.urls, API_KEY, options.races)
        findings = {**result.findings, **raced, "processes": surprises(running)}
    console.print(_table(result, findings, options.races, time.monotonic() - start))
    for name, found in findings.items():
        for line in found:
            console.print(f"[red]{name}[/]: {escape(line)}", soft_wrap=True, highlight=False)
    if any(findings.values()):
        console.print(f"the recording and logs are in {directory}", highlight=False)
        return 1
    shutil.rmtree(directory)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lin.run",
        description="Check what callers of the claims are told, while the service dies and stalls.",
    )
    parser.add_argument("--operations", type=int, default=25_000, metavar="N")
    parser.add_argument("--kills", type=int, default=12, metavar="N")
    parser.add_argument("--pauses", type=int, default=12, metavar="N")
    parser.add_argument("--races", type=int, default=1_000, metavar="N")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    return parser.parse_args(arguments)


@contextmanager
def _progress(console: Console, plan: Plan) -> Iterator[Watcher]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        calls = progress.add_task("calls", total=plan.operations)

        def watch(world: World) -> None:
            progress.update(calls, completed=world.calls)

        yield watch


def _table(
    result: Result, findings: Mapping[str, Sequence[str]], races: int, seconds: float
) -> Table:
    world = result.world
    counts = world.counts
    did = Counter(o.verb for o in world.operations)
    outcomes = Counter(o.code or o.outcome for o in world.operations)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("seconds", round(seconds)),
        ("kills", counts["kills"]),
        ("pauses", counts["pauses"]),
        ("sessions and instances", counts["sessions"] + counts["instances"]),
        ("heartbeats", counts["heartbeats"]),
        ("operations on items", len(world.operations)),
        *((f"  {verb}", number) for verb, number in did.most_common()),
        ("sent more than once", counts["sent more than once"]),
        ("grants", sum(o.anew for o in world.operations)),
        ("  by takeover", _takeovers(world.operations)),
        *((name, number) for name, number in outcomes.most_common()),
        ("races", races),
    ):
        table.add_row(name, f"{value:,}")
    table.add_section()
    for name, found in findings.items():
        table.add_row(name, f"[red]{len(found)} found[/]" if found else "[green]good[/]")
    return table


def _takeovers(operations: Sequence[Operation]) -> int:
    return sum(o.verb == "take over" and o.anew for o in operations)


if __name__ == "__main__":
    sys.exit(main())
