"""Prints a list of machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from holdfast.cli.show.table import Column, table
from holdfast.cli.show.words import plural
from holdfast.cli.text import safe

COLUMNS = (
    Column("MACHINE", least=16, cut="middle"),
    Column("STATUS", 8, least=8),
    Column("SESSIONS", 7, justify="right"),
    Column("SLOTS", 6),
    Column("HOST", 3, least=12),
)


def listed(console: Console, found: Mapping[str, Any]) -> None:
    """Print the list and its count."""
    if not found["machines"]:
        console.print("No machine is registered.")
        return
    rows = [
        (
            Text(safe(machine["machine_id"])),
            Text(machine["status"], "" if machine["status"] == "online" else "yellow"),
            Text(str(len(machine["active_sessions"]))),
            Text(", ".join(map(str, machine["docker_slots"]))),
            Text(safe(machine["hostname"])),
        )
        for machine in found["machines"]
    ]
    console.print(table(COLUMNS, rows, console.width))
    console.print()
    console.print(plural(found["total_count"], "machine"))
