"""Sessions and instances that are open when their process is told to end, or ends (S4 4.3).

A process that gets SIGTERM dies on the spot: what is open stays open until it stalls. So from the
moment on in which the main thread makes a client, and only where the program has no handler of its
own, SIGTERM and SIGHUP raise :class:`Terminated`, a ``SystemExit``, in the main thread while
something is open: the ``with`` blocks end, and say why. The process ends all the same, with the
exit code that a shell tells: 128 + the signal. A second signal ends it at once, as does the end of
:data:`GRACE_SECONDS`, whoever waits for whom then. Where nothing is open it ends as ever.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Protocol

log = logging.getLogger("holdfast")

# `docker stop` and others kill after ten.
GRACE_SECONDS = 8.0
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(SystemExit):
    """The process was told to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}"


class Open(Protocol):
    """What has to be ended with its process."""

    def abandon(self, why: str) -> None:
        """Report the end: the block has not ended, and will not."""


class _Endings:
    def __init__(self) -> None:
        self._open: dict[int, tuple[int, Open]] = {}
        self._lock = threading.RLock()
        self._is_registered = False
        # Why the process ends, once it was told to.
        self.cause: str | None = None

    def listen(self) -> None:
        """From now on the signals are heard, if this is the main thread: others, which may begin
        something later, cannot ask for that.
        """
        self._listen()

    def begin(self, it: Open) -> None:
        """It is open from now on."""
        with self._lock:
            self._open[id(it)] = (os.getpid(), it)
            if not self._is_registered:
                self._is_registered = True
                atexit.register(self._at_exit)
        self._listen()

    def end(self, it: Open) -> None:
        """It has been ended."""
        with self._lock:
            self._open.pop(id(it), None)

    def _mine(self) -> list[Open]:
        """What this process has opened: a child of it inherits the list, but not what is on it."""
        return [it for pid, it in [*self._open.values()] if pid == os.getpid()]

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            # Whoever has a handler, or ignores it, decides for himself.
            if signal.getsignal(number) is signal.SIG_DFL:
                with suppress(ValueError, OSError):
                    signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not self._mine():
            os.kill(os.getpid(), number)
            return
        self.cause = str(Terminated(number))
        # The bare thread: this may have come in the midst of starting another.
        with suppress(RuntimeError):
            _thread.start_new_thread(self._see_to_it, (number,))
        raise Terminated(number)

    def _see_to_it(self, number: int) -> None:
        """Something does not end: another thread is at work, or the exception was caught."""
        time.sleep(GRACE_SECONDS)
        self._abandon(str(Terminated(number)))
        os.kill(os.getpid(), number)

    def _at_exit(self) -> None:
        self._abandon("its process ended before it did")

    def _abandon(self, why: str) -> None:
        for it in self._mine():
            try:
                it.abandon(why)
            except Exception:
                log.exception("The end of what was open could not be recorded.")


endings = _Endings()
