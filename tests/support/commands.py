"""The command ``holdfast``: within this process, as a process of its own, at a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from holdfast.cli.app import app

EXECUTABLE = Path(sys.executable).with_name("holdfast")
SECONDS = 60.0
ROWS = 50
# What would change how it prints, were it set where the tests run.
LOOKS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@contextmanager
def _levels_as_they_are() -> Iterator[None]:
    """A command that runs to its end as a process decides what its process logs; here it is not."""
    levels = {logger.name: logger.level for logger in _loggers()}
    try:
        yield
    finally:
        for logger in _loggers():
            logger.setLevel(levels.get(logger.name, logging.NOTSET))


def _loggers() -> list[logging.Logger]:
    names = [name for name in logging.root.manager.loggerDict if name.startswith("holdfast")]
    return [logging.getLogger(name) for name in names]


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    def error(self) -> Any:
        """What it complained of, as JSON."""
        return json.loads(self.err)


class Cli:
    """The command, with the service and the key that it is told of in its environment."""

    def __init__(self, url: str, key: str | None) -> None:
        self.environ = {"HOLDFAST_URL": url} | ({"HOLDFAST_API_KEY": key} if key else {})

    def __call__(self, *arguments: str, **environ: str) -> Ended:
        """Within this process; both outputs are pipes."""
        plain: dict[str, str | None] = dict.fromkeys(LOOKS)
        given = {**plain, **self.environ, **environ}
        with _levels_as_they_are():
            ended = CliRunner().invoke(app, arguments, env=given, catch_exceptions=False)
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    def ok(self, *arguments: str, **environ: str) -> str:
        """What a command prints that must succeed."""
        ended = self(*arguments, **environ)
        assert ended.code == 0, ended.err
        assert ended.err == ""
        return ended.out

    def json(self, *arguments: str, **environ: str) -> Any:
        """The JSON that a command prints which must succeed."""
        return json.loads(self.ok(*arguments, "--json", **environ))

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """As a process of its own, whose outputs are pipes."""
        return subprocess.Popen(
            [EXECUTABLE, *arguments],
            env=self._whole(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process(self, *arguments: str, **environ: str) -> Ended:
        """As a process of its own, to its end."""
        with self.start(*arguments, **environ) as process:
            out, err = process.communicate(timeout=SECONDS)
            return Ended(process.returncode, out, err)

    def at_terminal(self, *arguments: str, columns: int = 80, **environ: str) -> Ended:
        """As a process of its own at a terminal, which gets both outputs."""
        near, far = pty.openpty()
        ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        with subprocess.Popen(
            [EXECUTABLE, *arguments],
            env=self._whole({"TERM": "xterm-256color", **environ}),
            stdin=far,
            stdout=far,
            stderr=far,
        ) as process:
            os.close(far)
            seen = b""
            while chunk := _read(near):
                seen += chunk
            os.close(near)
            code = process.wait(timeout=SECONDS)
        return Ended(code, seen.decode().replace("\r\n", "\n"), "")

    def _whole(self, environ: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in LOOKS}
        return {**kept, **self.environ, **environ}


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the far end is closed
        return b""
