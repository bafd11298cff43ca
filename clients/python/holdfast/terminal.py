"""The terminal that a command runs at: given back as it was found, whatever the command did to it.

A full-screen program that is killed leaves the terminal raw, on its other screen, without a cursor,
and reporting every movement of the mouse as if it were typed.
"""

from __future__ import annotations

import os
import select
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LOCAL_MODES = 3

# Harmless where nothing of it was set. What would move the cursor stands between saving it and
# putting it back; leaving the other screen puts it back by itself, to where it was saved last.
RESET = (
    "\x1b[?2026l"  # what was held back is shown
    "\x1b7\x1b[r\x1b8"  # the whole screen scrolls
    "\x1b7\x1b[?1049l"  # back from the other screen
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l"  # no reports of the mouse,
    "\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l"
    "\x1b[?1004l"  # of the focus,
    "\x1b[?2031l\x1b[?2048l"  # of colours and sizes
    "\x1b[?2004l"  # what is pasted is as if typed
    "\x1b[<u\x1b[=0u\x1b[>4m"  # keys as they always were (kitty, xterm)
    "\x1b[?1l\x1b>"  # arrows and keypad, too
    "\x1b[?7h\x1b[4l"  # long lines wrap, nothing is inserted
    "\x0f\x1b(B\x1b[0m"  # letters, in plain
    "\x1b[?25h\x1b[0 q"  # a cursor, in its usual form
)


class Terminal:
    """The controlling terminal, if there is one and this process has it (is in its foreground).

    Otherwise nothing here does anything.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._modes: list[Any] | None = None
        self._shows = any(os.isatty(stream) for stream in (0, 1, 2))
        try:
            descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                self._modes = termios.tcgetattr(descriptor)
        except (OSError, termios.error):
            pass
        self._descriptor = descriptor

    @property
    def is_shared(self) -> bool:
        """Whether the command writes where the supervisor would: to this terminal."""
        return self._modes is not None and (os.isatty(1) or os.isatty(0))

    def close(self) -> None:
        """It is not needed any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_gone(self) -> bool:
        """Whether it was there and its window is closed, or its connection broken."""
        if self._descriptor is None:
            return False
        try:
            poll = select.poll()
            poll.register(self._descriptor, 0)
            return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
        except OSError:
            return True

    def take_back(self) -> None:
        """Into this process' hands again: a command that took the foreground is no more.

        Whoever is there has it for good: the shell, if this is a job in its background by now.
        """
        if self._descriptor is None or self._modes is None:
            return
        with _undisturbed(), suppress(OSError):
            if not _has_owner(self._descriptor):
                os.tcsetpgrp(self._descriptor, os.getpgrp())

    def restore(self) -> None:
        """As it was before the command, which has not ended well."""
        if self._descriptor is None or self._modes is None:
            return
        with _undisturbed(), suppress(OSError, termios.error):
            if os.tcgetpgrp(self._descriptor) == os.getpgrp():
                self._restore(self._descriptor, self._modes)

    def restore_for_others(self) -> None:
        """As it was, by who is in its background: the one that had it is no more. A shell that
        has it again by now has set the modes that it wants.
        """
        if self._descriptor is None or self._modes is None:
            return
        with _undisturbed(), suppress(OSError, termios.error):
            if _has_owner(self._descriptor):
                self._reset(self._descriptor)
            else:
                self._restore(self._descriptor, self._modes)

    def _restore(self, descriptor: int, modes: list[Any]) -> None:
        was = termios.tcgetattr(descriptor)
        if was != modes:
            termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        is_raw = bool(modes[LOCAL_MODES] & ~was[LOCAL_MODES] & termios.ICANON)
        if is_raw:
            # Reports of the mouse and answers to questions, which nobody asks for any more.
            termios.tcflush(descriptor, termios.TCIFLUSH)
        # Whoever drew a picture has not left the cursor at the beginning of a line.
        self._reset(descriptor, "\r\n" if is_raw else "")

    def _reset(self, descriptor: int, and_then: str = "") -> None:
        if self._shows and os.environ.get("TERM", "dumb") != "dumb":
            os.write(descriptor, (RESET + and_then).encode())


def _has_owner(descriptor: int) -> bool:
    """Whether any process is in its foreground."""
    try:
        os.killpg(os.tcgetpgrp(descriptor), 0)
    except PermissionError:
        return True
    except OSError:
        # None, or no session has it any more.
        return False
    return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Whoever is in the background may set a terminal without being stopped for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
