"""``python -m bench``: measure, show, keep. A bar that is missed is a result, not an error."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import figures, machine, report
from bench.bars import MEASURES, Measure
from bench.figures import BenchError, Effort, Figure
from bench.load import wrk_is_missing
from bench.servers import Stage, stage
from interfaces.host.embedded_postgres import EmbeddedPostgresError

NAMES = ", ".join(measure.name for measure in MEASURES if not measure.slow)
# The history of which the bar speaks (spec 16).
HISTORY = 10_000_000
USAGE_EXIT = 2
BROKEN_EXIT = 1

console = Console(highlight=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure this alone ({NAMES}); may be given several times."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short phases, to see that it works.")
    ] = False,
    history: Annotated[
        int,
        typer.Option(
            help="Measure instead whether costs grow with history: a store of so many events"
            " beside one of ten thousand. The bar is for 10000000, which takes half an hour.",
            min=0,
        ),
    ] = 0,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Measure nothing: print the kept figures.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep the data meanwhile: on the disk that matters. "
            "Default: the folder for temporary files.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Measure the service against its bars."""
    path = report.QUICK if quick else report.FULL
    if markdown:
        print(report.markdown(path))
        return
    chosen = _chosen(only, history)
    if wrk_is_missing():
        _refuse("wrk, which makes the load, is not installed: apt-get install wrk")
    try:
        with stage(data_dir) as built:
            broken = _measured(built, chosen, quick, history, path)
    except EmbeddedPostgresError as e:
        _refuse(str(e))
    if broken:
        raise typer.Exit(BROKEN_EXIT)


def _chosen(only: list[str] | None, history: int) -> list[Measure]:
    if only and history:
        _refuse("--history is a run of its own: leave out --only")
    for name in only or ():
        if name not in NAMES.split(", "):
            _refuse(f"there is no measure {name!r}; there are {NAMES}")
    if history:
        return [measure for measure in MEASURES if measure.slow]
    return [m for m in MEASURES if not m.slow and (not only or m.name in only)]


def _refuse(message: str) -> None:
    complaints.print(f"bench: {message}", markup=False)
    raise typer.Exit(USAGE_EXIT)


def _measured(built: Stage, chosen: list[Measure], quick: bool, history: int, path: Path) -> bool:
    """Carry out the measures; show and keep what came out. Whether one of them went wrong."""
    started = datetime.now(UTC)
    facts = machine.described(built.cluster)
    _warn(facts)
    load_before = os.getloadavg()[0]
    elsewhere = machine.Elsewhere([built.postgres])
    effort = (figures.QUICK if quick else figures.FULL)._replace(history=history)
    found, failures = _carried_out(built, chosen, effort)
    others = elsewhere.cores()
    run = {
        "started": started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "revision": machine.revision(),
        "quick": quick,
        "machine": facts,
        "postgres": built.postgres_version(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "busy_elsewhere_cores": round(others, 2),
    }
    console.print(report.table(found, failures))
    console.print(f"\n{report.details(found)}", style="dim", markup=False)
    for name, reason in failures.items():
        complaints.print(f"{name} failed: {reason}", markup=False)
    console.print(
        f"\n{facts['cores']} cores, load {run['load_before']} before, {run['load_after']} after;"
        f" others kept {run['busy_elsewhere_cores']} cores busy"
    )
    if others > 0.1:
        console.print("[yellow]The machine was not quiet: do not trust these figures.")
    if found and (quick or not 0 < history < HISTORY):
        report.keep(path, run, found)
        console.print(f"kept in {path.relative_to(machine.ROOT)}")
    elif found:
        console.print(f"not kept: the bar is for {HISTORY:,} events")
    return bool(failures)


def _carried_out(
    built: Stage, chosen: list[Measure], effort: Effort
) -> tuple[list[Figure], dict[str, str]]:
    found: list[Figure] = []
    failures: dict[str, str] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
    )
    # Drawn seldom: the bar must not take part in what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
        for measure in chosen:
            task = progress.add_task(measure.name, total=None, step="")

            def watch(step: str, done: int, of: int, task: object = task) -> None:
                progress.update(task, completed=done, total=of, step=step)  # type: ignore[arg-type]

            try:
                found += measure.run(built, effort, watch)
            except BenchError as e:
                failures[measure.name] = str(e)
            progress.remove_task(task)
            console.print(f"{measure.name} {'failed' if measure.name in failures else 'done'}")
    return found, failures


def _warn(facts: dict[str, object]) -> None:
    if facts["file_system"] in machine.IN_MEMORY:
        complaints.print(
            "bench: the data is kept in memory, where durability costs nothing;"
            " --data-dir names a folder on a disk"
        )


if __name__ == "__main__":
    typer.run(main)
