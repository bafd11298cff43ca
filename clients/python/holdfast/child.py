"""The command that is supervised, while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from holdfast.outcome import Outcome
from holdfast.process import Tree

# In the environment of the command and of all that it starts: what belongs to the run.
MARK = "HOLDFAST_RUN"


class Child:
    """A process that was started. ``on_start`` is called with its id before anything else happens,
    ``on_exit`` with its outcome, from another thread.

    It has what it would have without a supervisor: the terminal, the process group (so that Ctrl-C
    and Ctrl-Z reach both, and a pipeline stays one job), inherited files. Raises ``OSError``.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        mark: str,
        *,
        on_start: Callable[[int], None],
        on_exit: Callable[[Outcome], None],
    ) -> None:
        self._started = time.monotonic()
        environ = {**os.environ, **environ, MARK: mark}
        self._process = subprocess.Popen(command, env=environ, close_fds=False)
        on_start(self._process.pid)
        self._tree = Tree(self._process.pid, f"{MARK}={mark}")
        self._on_exit = on_exit
        self._kill_at: float | None = None
        self._was_stopped = False
        threading.Thread(target=self._wait, name="holdfast-wait", daemon=True).start()

    @property
    def patience(self) -> float | None:
        """The seconds until it is to be killed; ``None`` if it is not."""
        return None if self._kill_at is None else max(self._kill_at - time.monotonic(), 0.0)

    def send(self, number: int) -> None:
        """Pass a signal on to it."""
        self._process.send_signal(number)

    def stop(self, number: int, grace: float) -> None:
        """Ask it to end by a signal; after the grace it is killed (:meth:`kill`)."""
        # What it has started is known from now on, whoever of them goes first.
        self._tree.look(everywhere=True)
        self.send(number)
        if number == signal.SIGTERM:
            # Stopped by Ctrl-Z it must wake up to end.
            self.send(signal.SIGCONT)
        if not self._was_stopped:
            self._was_stopped = True
            self._kill_at = time.monotonic() + grace

    def kill(self) -> None:
        """Kill it and all that it started."""
        self._kill_at = None
        self._tree.kill()

    def leave_nothing_behind(self) -> None:
        """After it was stopped and has ended: what it started ends too."""
        if self._was_stopped:
            self._tree.end(time.monotonic() if self._kill_at is None else self._kill_at)

    def _wait(self) -> None:
        returncode = self._process.wait()
        self._on_exit(Outcome.of(returncode, time.monotonic() - self._started))
