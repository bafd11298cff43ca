"""The command that is supervised, while it runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from holdfast.outcome import Outcome
from holdfast.process import Process, Tree, is_daemon, named

if TYPE_CHECKING:
    from holdfast.guardian import Guardian

# In the environment of the command and of all that it starts: what belongs to the run.
MARK = "HOLDFAST_RUN"
# The rest of a pipeline ends by itself, soon after what it reads from.
SETTLE_SECONDS = 0.5


class Leftovers(NamedTuple):
    """What still ran when the command had ended: those among it in a (terminal) session of their
    own, and those who could not be ended.
    """

    daemons: list[str]
    left: list[str]


class Child:
    """A process that was started, by the guardian; ``on_exit`` is called with its outcome, from
    another thread.

    It has what it would have without a supervisor: the terminal, the process group (so that Ctrl-C
    and Ctrl-Z reach both, and a pipeline stays one job), inherited files. Raises ``OSError``.
    ``mark`` is the attempt's own, and begins with the run's.
    """

    def __init__(
        self,
        guardian: Guardian,
        command: Sequence[str],
        environ: Mapping[str, str],
        mark: str,
        *,
        on_exit: Callable[[Outcome], None],
    ) -> None:
        self._started = time.monotonic()
        self._guardian = guardian
        self._pid = guardian.start(command, {**os.environ, **environ, MARK: mark})
        self._tree = Tree(self._pid, f"{MARK}={mark}", keeper=guardian.pid)
        self._on_exit = on_exit
        self._kill_at: float | None = None
        self._has_ended = False
        self.was_stopped = False
        self._is_all_killed = False
        threading.Thread(target=self._wait, name="holdfast-wait", daemon=True).start()

    @property
    def patience(self) -> float | None:
        """The seconds until it is to be killed; ``None`` if it is not."""
        return None if self._kill_at is None else max(self._kill_at - time.monotonic(), 0.0)

    @property
    def is_in_foreground(self) -> bool:
        """Whether keys that reach this process reach the command, which is in the same group."""
        try:
            return os.getpgid(self._pid) == os.getpgrp()
        except OSError:
            return True

    def send(self, number: int) -> None:
        """Pass a signal on to it."""
        if not self._has_ended:
            # It may be another user's (sudo), which hears from its own terminal.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, number)

    def stop(self, number: int, grace: float, since: float | None = None) -> None:
        """Ask it to end by a signal; after the grace it is killed (:meth:`kill`).

        ``since``: the (monotonic) time from which on the grace counts.
        """
        # What it has started is known from now on, whoever of them goes first.
        self._tree.look(everywhere=True)
        self.send(number)
        if number == signal.SIGTERM:
            # Stopped by Ctrl-Z it must wake up to end.
            self.send(signal.SIGCONT)
        if not self.was_stopped:
            self.was_stopped = True
            self._kill_at = (time.monotonic() if since is None else since) + grace

    def kill(self) -> list[str]:
        """Kill it and all that it started; the names of those that could not be killed."""
        self._kill_at = None
        left = self._tree.kill()
        self._is_all_killed = not left
        return [named(process) for process in left]

    def leave_nothing_behind(self, grace: float, tell: Callable[[list[str]], None]) -> Leftovers:
        """After it has ended: what it started ends too, within the grace that is left.

        ``tell`` gets the names of those that a command left running which ended by itself.
        """
        if self._is_all_killed:
            # Nobody is left who could have started anything since.
            return Leftovers([], [])
        found: list[Process] = []
        if not self.was_stopped:
            found = self._tree.settle(SETTLE_SECONDS)
            if found:
                tell([named(process) for process in found])
        daemons = [named(process) for process in found if is_daemon(process)]
        now = time.monotonic()
        deadline = now + (0.0 if self.was_stopped else grace)
        left = self._tree.end(deadline if self._kill_at is None else self._kill_at)
        return Leftovers(daemons, [named(process) for process in left])

    def _wait(self) -> None:
        returncode = self._guardian.wait(self._pid)
        self._has_ended = True
        self._on_exit(Outcome.of(returncode, time.monotonic() - self._started))
