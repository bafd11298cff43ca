"""Kill the service and Postgres under load, again and again, then look for losses.

    python -m tests.crash.run [--service-kills N] [--postgres-kills N] [--seconds S] [--seed SEED]

Two processes of the service work on one database. Clients write through either and keep a ledger
of what they were told. Meanwhile SIGKILL takes one process or the other, or Postgres with all its
backends. What is there afterwards is held against the ledgers, and against itself.
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

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from projections import DEFINITIONS
from projections.kernel.definition import folded
from projections.kernel.projector import Folder
from tests.crash import ledger
from tests.crash.checks import CHECKS
from tests.crash.clients import API_KEY, MACHINES, Client, World
from tests.crash.history import History, collect
from tests.crash.victims import Service
from tests.support.killable import KillablePostgres
from tests.support.waiting import eventually

CLIENTS = 10
SERVICES = 2
# Every kill finds writes under way: this many were acknowledged since the one before.
WRITES_BETWEEN = 20
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.1
SHOWN = 10

# Sessions stall within the run, and sweeps of both processes note it.
SETTINGS: Mapping[str, str] = {
    "API_KEYS": API_KEY,
    "STALL_THRESHOLD_MS": "1500",
    "INSTANCE_STALE_SECONDS": "1.5",
    "CLAIM_STALE_SECONDS": "5",
    "SWEEP_SECONDS": "0.5",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard it is to be. The kills are spread over about this many seconds."""

    service_kills: int
    postgres_kills: int
    seconds: float
    seed: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was done, and what each check found."""

    counts: Counter[str]
    history: History
    findings: Mapping[str, Sequence[str]]

    @property
    def is_good(self) -> bool:
        return not any(self.findings.values())


# Told now and then what has happened so far.
Watcher = Callable[[Counter[str]], None]


def ordeal(directory: Path, plan: Plan, watch: Watcher = lambda _: None) -> Result:
    """Go through with the plan, in a folder that the server's account can reach."""
    postgres = KillablePostgres(directory)
    with ExitStack() as stack:
        stack.callback(postgres.stop)
        url = postgres.start()
        services = [
            Service({**SETTINGS, "DATABASE_URL": url}, directory / f"service-{n}.log")
            for n in range(SERVICES)
        ]
        for service in services:
            stack.callback(service.stop)
            service.start()
        for service in services:
            eventually(service.answers, f"a process serving on port {service.port}")
        world = World([service.url for service in services])
        with _clients(world, plan.seed, directory):
            _kill(plan, world, services, postgres, watch)
        for service in services:
            eventually(service.answers, f"a process serving on port {service.port}")
        eventually(lambda: _is_projected(url), "the projectors' catching up")
        for service in services:
            service.stop()
        surprises = [
            f"a process of the service ended with exit code {code}, and nobody had killed it"
            for service in services
            for code in service.surprises
        ]
        history = collect(url, list(ledger.read(directory)), surprises)
    findings = {check.__name__.replace("_", " "): check(history) for check in CHECKS}
    return Result(world.counts, history, findings)


@contextmanager
def _clients(world: World, seed: str, directory: Path) -> Iterator[None]:
    """Clients that write for the length of the block, and finish what they have begun."""
    clients = [Client(world, f"{seed}/{number}", directory) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        world.stopping.set()
        for client in clients:
            client.join()
    for client in clients:
        if client.error is not None:
            raise client.error


def _kill(
    plan: Plan,
    world: World,
    services: Sequence[Service],
    postgres: KillablePostgres,
    watch: Watcher,
) -> None:
    chance = random.Random(plan.seed)
    victims = ["service"] * plan.service_kills + ["postgres"] * plan.postgres_kills
    chance.shuffle(victims)
    pause = plan.seconds / max(len(victims), 1)
    for victim in victims:
        # Now and then the next blow falls before the last one's victim is up again.
        if chance.random() > 0.2:
            _let_write(world, pause * chance.uniform(0.6, 1.9), watch)
        if victim == "postgres":
            postgres.kill()
            postgres.start()
        else:
            chance.choice(services).kill()
        world.count(f"{victim} kills")
    _let_write(world, pause, watch)


def _let_write(world: World, seconds: float, watch: Watcher) -> None:
    """Let clients write for a while, and until some of it was acknowledged."""
    start = time.monotonic()
    before = world.counts["acknowledged"]
    while (
        time.monotonic() < start + seconds or world.counts["acknowledged"] < before + WRITES_BETWEEN
    ):
        if time.monotonic() > start + seconds + PATIENCE_SECONDS:
            raise AssertionError(f"hardly a write was acknowledged for {PATIENCE_SECONDS:g} s")
        watch(world.counts)
        time.sleep(LOOK_SECONDS)
    watch(world.counts)


def _is_projected(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return not Folder(connection, folded(DEFINITIONS)).behind()


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it once, and show what came of it: 0 when every check is good."""
    plan = _plan(arguments)
    console = Console()
    console.print(
        f"{SERVICES} processes of the service, {CLIENTS} clients, {len(MACHINES)} machines;"
        f" {plan.service_kills} kills of the service, {plan.postgres_kills} of Postgres;"
        f" seed {plan.seed}",
        highlight=False,
    )
    directory = Path(tempfile.mkdtemp(prefix="holdfast-crash-", dir="/tmp"))
    directory.chmod(0o711)
    start = time.monotonic()
    with _progress(console, plan) as watch:
        result = ordeal(directory, plan, watch)
    console.print(_table(result, time.monotonic() - start))
    for name, found in result.findings.items():
        for line in found[:SHOWN]:
            console.print(f"[red]{name}[/]: {escape(line)}", soft_wrap=True, highlight=False)
    if result.is_good:
        shutil.rmtree(directory)
        return 0
    console.print(f"ledgers, logs and the cluster are in {directory}", highlight=False)
    return 1


def _plan(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.run",
        description="Kill the service and Postgres under load, then look for losses.",
    )
    parser.add_argument("--service-kills", type=int, default=24, metavar="N")
    parser.add_argument("--postgres-kills", type=int, default=6, metavar="N")
    parser.add_argument("--seconds", type=float, default=90, metavar="S")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    return Plan(**vars(parser.parse_args(arguments)))


@contextmanager
def _progress(console: Console, plan: Plan) -> Iterator[Watcher]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        services = progress.add_task("kills of the service", total=plan.service_kills)
        postgres = progress.add_task("kills of Postgres", total=plan.postgres_kills)
        writes = progress.add_task("writes acknowledged", total=None)

        def watch(counts: Counter[str]) -> None:
            progress.update(services, completed=counts["service kills"])
            progress.update(postgres, completed=counts["postgres kills"])
            progress.update(writes, completed=counts["acknowledged"])

        yield watch


def _table(result: Result, seconds: float) -> Table:
    counts, history = result.counts, result.history
    refusals = Counter(e.code for e in history.entries if e.outcome == "refused")
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("seconds", round(seconds)),
        ("kills of the service", counts["service kills"]),
        ("kills of Postgres", counts["postgres kills"]),
        ("writes acknowledged", counts["acknowledged"]),
        ("writes sent more than once", counts["retried"]),
        ("writes with an unknown outcome", counts["unknown"]),
        ("writes refused", counts["refused"]),
        *((f"  {code}", number) for code, number in refusals.most_common()),
        ("events", len(history.events)),
        ("streams", len({event.stream_id for event in history.events})),
        ("recoveries", sum(e.event_type == "session_recovered" for e in history.events)),
        ("stalls", sum(e.event_type == "session_stalled" for e in history.events)),
    ):
        table.add_row(name, f"{value:,}")
    table.add_section()
    for name, found in result.findings.items():
        table.add_row(name, f"[red]{len(found)} found[/]" if found else "[green]good[/]")
    return table


if __name__ == "__main__":
    sys.exit(main())
