"""Where a command writes: people read stdout, and progress goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from holdfast.cli.text import dumped

if TYPE_CHECKING:
    from rich.console import Console

# Without a terminal nothing is cut: whoever reads a pipe wants all of it.
ENDLESS_COLUMNS = 10_000
# What takes longer is shown to be getting on.
Advance = Callable[[int, int], None]


def out() -> Console:
    """Standard output. Colours only on a terminal, and not if NO_COLOR is set."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error."""
    return _console(sys.stderr)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """JSON on standard output."""
    print(dumped(value, indent), flush=True)


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar on stderr, if a person is there to see it; called with how much of how much is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = err()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    endless = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(
        file=stream,
        width=ENDLESS_COLUMNS if endless else None,
        markup=False,
        emoji=False,
        highlight=False,
    )
