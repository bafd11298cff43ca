"""Attack a running service in many ways, and see whether a well-behaved client notices.

    python -m tests.abuse.run [--seconds S] [--only TEXT] [--settle S]

One process of the service with its own Postgres and default settings. One attack after the other
runs in a process of its own, over loopback, while a client with a key of another namespace beats
and reads. Shown for each: the client's times and failures, and the memory of the service before,
at most, and once it has been left alone for a moment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.abuse.attacks import ATTACKS, WITHOUT_A_KEY, Target, carry_out
from tests.abuse.normal import Normal
from tests.acceptance.serving import PLAIN_KEY, TEAM_KEY, Server

# What an attack may do to others.
MAX_P95_MS = 100.0
MAX_GROWTH = 100 * 1024 * 1024
LOOK_SECONDS = 0.05
# An attack that does not end by itself is ended.
PATIENCE_SECONDS = 60.0
SHOWN = 5
# Of the table in a file.
WIDTH = 150


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which attacks, for how long each, and how long the service is left alone afterwards."""

    names: Sequence[str]
    seconds: float
    settle: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one attack went. Sizes in bytes, times in milliseconds."""

    name: str
    attempts: int
    requests: int
    p50: float
    p95: float
    worst: float
    failures: Sequence[str]
    before: int
    peak: int
    after: int
    log: int

    @property
    def growth(self) -> int:
        """How much more memory it took at most."""
        return self.peak - self.before

    def misses(self, *, timed: bool) -> list[str]:
        """What is wrong with it; its times only if they mean anything on this machine."""
        found = []
        if not self.attempts:
            found.append("nothing was attempted")
        if not self.requests:
            found.append("nobody asked meanwhile")
        if self.failures:
            found.append(f"{len(self.failures)} normal requests failed: {self.failures[0]}")
        if self.growth >= MAX_GROWTH:
            found.append(f"the memory grew by {_mib(self.growth)} MiB")
        if timed and self.p95 >= MAX_P95_MS:
            found.append(f"p95 of normal requests is {self.p95:.0f} ms")
        return found


def attack(server: Server, name: str, seconds: float, settle: float) -> Outcome:
    """Carry out one attack while the well-behaved client asks."""
    process = psutil.Process(server.process.pid)
    normal = Normal(server.url, TEAM_KEY, "team-b")
    log = server.output.stat().st_size
    before = _resident(process)
    normal.start()
    with _peak(process) as peak:
        attempts = _carried_out(name, Target(server.url, PLAIN_KEY, seconds))
    normal.stop()
    time.sleep(settle)
    times = sorted(normal.seconds)
    return Outcome(
        name=name,
        attempts=attempts,
        requests=len(times),
        p50=_quantile(times, 0.5),
        p95=_quantile(times, 0.95),
        worst=_quantile(times, 1),
        failures=normal.failures,
        before=before,
        peak=peak(),
        after=_resident(process),
        log=server.output.stat().st_size - log,
    )


def ordeal(directory: Path, plan: Plan, watch: Callable[[Outcome], None]) -> list[Outcome]:
    """Go through with the plan, in a folder that the server's account can reach."""
    outcomes = []
    with Server(None, directory, SWEEP_SECONDS="30") as server:
        # What is built at first is not what an attack has cost.
        attack(server, "unknown paths", 1, 0)
        for name in plan.names:
            outcome = attack(server, name, plan.seconds, plan.settle)
            watch(outcome)
            outcomes.append(outcome)
    return outcomes


def _context() -> ForkServerContext | SpawnContext:
    """How attackers are begun: from a process that has imported already what they need."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.abuse.attacks"])
    return context


def _carried_out(name: str, target: Target) -> int:
    context = _context()
    counts: multiprocessing.Queue[int] = context.Queue()
    attacker = context.Process(target=carry_out, args=(name, target, counts.put), daemon=True)
    attacker.start()
    attacker.join(target.seconds + PATIENCE_SECONDS)
    if attacker.is_alive():
        attacker.kill()
        attacker.join()
    return counts.get(timeout=30) if attacker.exitcode == 0 else 0


@contextmanager
def _peak(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """Watches the memory for the length of the block."""
    most = _resident(process)
    stopping = threading.Event()

    def look() -> None:
        nonlocal most
        while not stopping.wait(LOOK_SECONDS):
            most = max(most, _resident(process))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most
    finally:
        stopping.set()
        thread.join()


def _resident(process: psutil.Process) -> int:
    size: int = process.memory_info().rss
    return size


def _quantile(times: Sequence[float], part: float) -> float:
    if not times:
        return 0.0
    return times[min(int(len(times) * part), len(times) - 1)] * 1000


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f}"


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, and show what came of it: 0 when nobody was harmed."""
    plan = _plan(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    directory = Path(tempfile.mkdtemp(prefix="holdfast-abuse-", dir="/tmp"))
    directory.chmod(0o711)
    console.print(f"{len(plan.names)} attacks, {plan.seconds:g} s each", highlight=False)

    def watch(outcome: Outcome) -> None:
        misses = outcome.misses(timed=True)
        console.print(f"  {outcome.name}: {'; '.join(misses) or 'good'}", markup=False)

    outcomes = ordeal(directory, plan, watch)
    console.print(_table(outcomes))
    for outcome in outcomes:
        for failure in outcome.failures[:SHOWN]:
            console.print(
                f"[red]{outcome.name}[/]: {escape(failure)}", soft_wrap=True, highlight=False
            )
    if not any(outcome.misses(timed=True) for outcome in outcomes):
        shutil.rmtree(directory)
        return 0
    console.print(f"the service's log is in {directory}", highlight=False)
    return 1


def _plan(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(
        prog="python -m tests.abuse.run",
        description="Attack a running service, and see whether a well-behaved client notices.",
    )
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of each attack")
    parser.add_argument("--settle", type=float, default=2, metavar="S", help="between attacks")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks that have this in them")
    given = parser.parse_args(arguments)
    names = [name for name in ATTACKS if given.only in name]
    if not names:
        parser.error("no such attack; there are: " + ", ".join(ATTACKS))
    return Plan(names=names, seconds=given.seconds, settle=given.settle)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(caption="times in ms, memory of the service's process in MiB")
    table.add_column("attack", no_wrap=True)
    for title in ("key", "attempts", "normal", "p50", "p95", "max", "failed"):
        table.add_column(title, justify="right")
    for title in ("before", "peak", "after", "log KiB", ""):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            "" if outcome.name in WITHOUT_A_KEY else "yes",
            f"{outcome.attempts:,}",
            f"{outcome.requests:,}",
            *(f"{value:.1f}" for value in (outcome.p50, outcome.p95, outcome.worst)),
            str(len(outcome.failures)),
            *(_mib(size) for size in (outcome.before, outcome.peak, outcome.after)),
            f"{outcome.log / 1024:,.0f}",
            "[red]missed[/]" if outcome.misses(timed=True) else "[green]good[/]",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
