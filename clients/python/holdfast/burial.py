"""Buries the orphans of a run: they become children of its supervisor, which knows nothing of them.

As the first process of a container it gets those of every process there; where the guardian is
killed, what that one had adopted.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from holdfast.process import PROC, adopt_orphans

LOOK_SECONDS = 1.0


class Burial:
    """For a ``with`` block. Who was started by this process itself is waited for elsewhere, at
    once: whoever lies dead for a whole second is nobody else's to bury.
    """

    def __enter__(self) -> Burial:
        self._over = threading.Event()
        if adopt_orphans():
            threading.Thread(target=self._run, name="holdfast-burial", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        before: set[int] = set()
        while not self._over.wait(LOOK_SECONDS):
            dead = _dead_children()
            for pid in before & dead:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            before = dead


def _dead_children() -> set[int]:
    """Without taking their end away from whoever waits for them."""
    found: set[int] = set()
    with suppress(OSError, ChildProcessError):
        # If none of them is dead there is nothing to look for.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return found
        for name in os.listdir(PROC):
            if name.isdigit():
                with suppress(OSError):
                    text = (PROC / name / "stat").read_text(errors="replace")
                    state, parent, *_ = text.rpartition(")")[2].split()
                    if state == "Z" and int(parent) == os.getpid():
                        found.add(int(name))
    return found
