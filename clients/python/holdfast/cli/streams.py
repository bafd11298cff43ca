"""Stdin, stdout and stderr, which may be closed, full, broken, or of any encoding."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from holdfast.cli.text import safe

FAILED = 1


def prepare() -> None:
    """Make sure that all three exist, and that every character can be written to them.

    A closed one is opened on the null device, so that no other file gets its number.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or _writable(1)
    sys.stderr = sys.stderr or _writable(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A warning may quote text that a stranger wrote.
    logging.lastResort = _Last(logging.WARNING)


def ended(run: Callable[[], object]) -> int:
    """Run a command and return its exit code, also if its output cannot be written."""
    code = 0
    try:
        run()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else FAILED if e.code else 0
    except OSError as e:
        code = FAILED
        # A reader that closes the pipe wants no more output: that is no error to report.
        if e.errno != errno.EPIPE:
            complain(f"holdfast: {e.strerror or e}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as e:
            code = code or FAILED
            if stream is sys.stdout and getattr(e, "errno", None) != errno.EPIPE:
                complain(f"holdfast: the output could not be written: {e}")
            _abandon(stream)
    return code


def complain(line: str) -> None:
    """Print a line on stderr, unless stderr is closed."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _writable(number: int) -> IO[str]:
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _abandon(stream: IO[str]) -> None:
    """Discard what is still buffered; the interpreter would try to write it again, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Last(logging.Handler):
    """Prints log records that no other handler takes."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            complain(safe(line))
