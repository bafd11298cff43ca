"""The output of a command: results on stdout, progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from holdfast.cli.text import dumped

if TYPE_CHECKING:
    from rich.console import Console

# Lines are cut at a terminal only: whoever reads a pipe wants all of them.
ENDLESS_COLUMNS = 10_000
# Called with how many of how many steps are done.
Advance = Callable[[int, int], None]


def out() -> Console:
    """A console on stdout. Colours only on a terminal, and not if NO_COLOR is set."""
    return _console(sys.stdout)


def err() -> Console:
    """A console on stderr."""
    return _console(sys.stderr)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON on stdout."""
    print(dumped(value, indent), flush=True)


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A progress bar on stderr, if that is a terminal. Call it with the counts done and in all."""
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
