"""What the tour shows: a table of sessions and a log in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LOG_LINES = 12
BAR_WIDTH = 20
# Ages as the service colours them, in the tour's proportions.
YELLOW_SECONDS = 1.0
RED_SECONDS = 3.0

COLOURS = {
    "active": "green",
    "paused": "yellow",
    "stalled": "bold red",
    "failed": "red",
    "completed": "blue",
    "recovered": "magenta",
}

Json = dict[str, Any]


class Screen:
    """Keeps the picture up to date for the length of a block."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: list[str] = []
        self._table: Table | None = None
        self._start = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Add a line to the log, with the time since the beginning. May carry markup."""
        line = f"[dim]{time.monotonic() - self._start:5.1f} s[/]  {line}"
        if self._live is None:
            self.console.print(line, highlight=False, soft_wrap=True)
            return
        self._lines.append(line)
        self._draw()

    def show(
        self,
        sessions: Sequence[Json],
        tasks: Mapping[str, Sequence[Json]],
        ages: Mapping[str, float],
    ) -> None:
        """Show these sessions, oldest first, each with its tasks and its heartbeat's age."""
        if self._live is None:
            return
        table = Table(expand=False)
        for heading in ("session", "project", "machine", "status"):
            table.add_column(heading)
        table.add_column("heartbeat", justify="right")
        table.add_column("current task", min_width=14)
        table.add_column("tasks done")
        for session in sessions:
            table.add_row(*_row(session, tasks.get(session["session_id"], ()), ages))
        self._table = table
        self._draw()

    def _draw(self) -> None:
        assert self._live is not None
        log = [Text.from_markup(line) for line in self._lines[-LOG_LINES:]]
        self._live.update(Group(*([self._table] if self._table else []), *log))


def _row(
    session: Json, tasks: Sequence[Json], ages: Mapping[str, float]
) -> Sequence[str | Text | Table]:
    session_id = session["session_id"]
    outcome = session["outcome"]
    status = outcome if outcome == "recovered" else session["status"]
    done = sum(task["status"] == "completed" for task in tasks)
    is_live = session["completed_at"] is None
    current = [t["task_name"] for t in tasks if t["task_id"] == session["current_task_id"]]
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        ProgressBar(total=max(len(tasks), 1), completed=done, width=BAR_WIDTH),
        f"{done}/{len(tasks)}",
    )
    return (
        short(session_id),
        escape(session["project_id"]),
        escape(session["machine_id"]),
        Text(status, style=COLOURS[status]),
        _age(ages.get(session_id)),
        escape(current[0]) if current and is_live else "",
        progress,
    )


def _age(seconds: float | None) -> Text:
    if seconds is None:
        return Text("–", style="dim")
    style = "green" if seconds < YELLOW_SECONDS else "yellow" if seconds < RED_SECONDS else "red"
    return Text(f"{seconds:.1f} s ago", style=style)


def short(session_id: str) -> str:
    """As much of an id as tells sessions apart on one screen."""
    return session_id[:8]
