"""Sees to it that a supervised command does not outlive its supervisor.

A supervisor that is killed (``kill -9``, out of memory) can do nothing any more. This small process
holds the other end of a pipe to it; when that breaks, it stops the command and all that it started.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from holdfast.child import MARK
from holdfast.process import LOOK_SECONDS, Tree, stop

OVER = "over"
END_SECONDS = 5.0
JUST_STARTED_SECONDS = 1.0
# Isolated: neither the folder in which one happens to be nor PYTHONPATH decides what is imported.
START = "import sys; sys.path.insert(0, sys.argv[1]); from holdfast.guardian import main; main()"


class Guardian:
    """The supervisor's side. For a ``with`` block."""

    def __init__(self, grace: float, mark: str) -> None:
        self._arguments = [str(grace), mark]

    def __enter__(self) -> Guardian:
        folder = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, folder, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            # What is typed at the terminal is not for it.
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._say(OVER)
        with suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def guard(self, pid: int) -> None:
        """From now on it is this process that must not be left alone."""
        self._say(str(pid))

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _say(self, word: str) -> None:
        # Without a guardian the work goes on.
        with suppress(OSError):
            print(word, file=self._stdin, flush=True)


def main() -> None:
    """Wait for the end of the supervisor. The arguments are the grace in seconds and the mark."""
    # It goes when its supervisor has gone, not before.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grace, mark = float(sys.argv[2]), f"{MARK}={sys.argv[3]}"
    tree = Tree(0, mark)
    for line in sys.stdin:
        word = line.strip()
        if word == OVER:
            return
        tree = Tree(int(word), mark)
    # Killed in the midst of starting the command, the supervisor could not tell of it.
    until = time.monotonic() + JUST_STARTED_SECONDS
    while not tree.look(everywhere=True) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    stop(tree, grace)
