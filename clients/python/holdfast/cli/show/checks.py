"""Prints the results of ``holdfast doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli.text import safe


class Check(Protocol):
    """The result of a check."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def found(self) -> str: ...
    @property
    def advice(self) -> str | None: ...


def listed(console: Console, checks: Sequence[Check]) -> None:
    """Print each result on a line, and below it what to do."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        mark = Text("✓", "green") if check.ok else Text("✗", "bold red")
        lines.add_row(mark, Text(check.name), Text(safe(check.found)))
        if check.advice:
            lines.add_row("", "", Text(f"→ {safe(check.advice)}", "yellow"))
    console.print(lines)
