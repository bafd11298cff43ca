"""A run's figures: kept as JSON, shown as a table in the terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from bench.bars import MEASURES
from bench.figures import Bar, Detail, Figure, written

Json = dict[str, Any]

FOLDER = Path(__file__).parent
FULL = FOLDER / "latest.json"
QUICK = FOLDER / "quick.json"


def keep(path: Path, run: Json, figures: list[Figure]) -> None:
    """Write a run's figures. Those of an earlier run stay where this one has none.

    Each figure says which run it is of, since they need not all be of the same.
    """
    kept = load(path)
    for figure in figures:
        kept[figure.bar] = {
            "measured": figure.measured,
            **({"shown": figure.shown} if figure.shown else {}),
            "details": dict(figure.details),
            "run": run,
        }
    ordered = {bar.name: kept[bar.name] for bar in _bars() if bar.name in kept}
    path.write_bytes(orjson.dumps(ordered, option=orjson.OPT_INDENT_2) + b"\n")


def load(path: Path) -> Json:
    """The figures that were kept, by bar."""
    if not path.exists():
        return {}
    kept: Json = orjson.loads(path.read_bytes())
    return kept


def table(figures: list[Figure], failures: dict[str, str]) -> Table:
    """What, measured, bar, verdict."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("what")
    shown.add_column("measured", justify="right", no_wrap=True)
    shown.add_column("bar", justify="right", no_wrap=True)
    shown.add_column("")
    by_bar = {figure.bar: figure for figure in figures}
    for measure in MEASURES:
        for bar in measure.bars:
            if bar.name in by_bar:
                figure = by_bar[bar.name]
                verdict = "[green]✓" if bar.met_by(figure.measured) else "[red]✗"
                measured = figure.shown or _with_unit(bar, figure.measured)
                shown.add_row(bar.what, measured, bar.shown(), verdict)
            elif measure.name in failures:
                shown.add_row(bar.what, "[red]failed", bar.shown(), "")
    return shown


def details(figures: list[Figure]) -> str:
    """What helps to understand each figure."""
    lines = {bar.name: bar.what for bar in _bars()}
    return "\n".join(f"{lines[figure.bar]}: {_listed(figure.details)}" for figure in figures)


def markdown(path: Path) -> str:
    """The kept figures as a table for the documentation; rows without one stay empty."""
    kept = load(path)
    lines = ["| what | measured | bar | |", "|---|---:|---:|---|"]
    for bar in _bars():
        entry = kept.get(bar.name)
        if entry is None:
            lines.append(f"| {bar.what} | | {bar.shown()} | |")
            continue
        measured = entry.get("shown") or _with_unit(bar, entry["measured"])
        verdict = "✓" if bar.met_by(entry["measured"]) else "✗"
        lines.append(f"| {bar.what} | {measured} | {bar.shown()} | {verdict} |")
    details = {bar.what: kept[bar.name]["details"] for bar in _bars() if bar.name in kept}
    lines += ["", *(f"- {what}: {_listed(given)}" for what, given in details.items())]
    runs = {entry["run"]["started"]: entry["run"] for entry in kept.values()}
    lines += ["", *(_about(run) for _, run in sorted(runs.items()))]
    return "\n".join(lines).rstrip()


def _bars() -> list[Bar]:
    return [bar for measure in MEASURES for bar in measure.bars]


def _with_unit(bar: Bar, measured: float) -> str:
    return f"{written(measured)} {bar.unit}".rstrip()


def _listed(given: Mapping[str, Detail]) -> str:
    return " · ".join(f"{name.replace('_', ' ')} {written(v)}" for name, v in given.items())


def _about(run: Json) -> str:
    at = run["machine"]
    revision = f", revision {run['revision']}" if run["revision"] else ""
    quick = " Quick: the figures say little." if run["quick"] else ""
    return (
        f"Taken {run['started'][:10]}{revision}: {at['cores']} cores ({at['cpu']}),"
        f" {written(at['memory_gib'])} GiB, {at['system']}, {at['file_system']},"
        f" 8 KiB made durable in {written(at['sync_ms'])} ms; Python {at['python']},"
        f" Postgres {run['postgres']}. Others kept {written(run['busy_elsewhere_cores'])}"
        f" cores busy meanwhile.{quick}"
    )
