"""Whether a command ended of its own accord, or because it was made to."""

from __future__ import annotations

import time

from holdfast.happenings import Signalled

# A signal for the whole process group may end the command before the supervisor hears of it.
SIMULTANEOUS_SECONDS = 0.5


class Interrupts:
    """What came during one attempt that may have ended it. Times are monotonic.

    A signal from elsewhere, and a stop of the supervisor's own, always did. What was typed
    (Ctrl-C) may have been meant for what the command was doing: it did if the end came within the
    grace, the time that a command has to end in.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._typed_at = float("-inf")
        # Since when it is asked to end.
        self._asked_at: float | None = None
        self.begin()

    def begin(self) -> None:
        """The next attempt starts. What was typed before it still counts for :attr:`is_recent`."""
        self._ended_at = float("inf")
        self._stopped: str | None = None
        self._typed: Signalled | None = None

    def note(self, signalled: Signalled) -> None:
        """A signal that asks to end."""
        if self._asked_at is None or signalled.at - self._asked_at > self._grace:
            self._asked_at = signalled.at
        if signalled.typed:
            self._typed_at = signalled.at
        if signalled.at > self._ended_at + SIMULTANEOUS_SECONDS:
            return
        if signalled.typed:
            self._typed = signalled
        else:
            self.stopped(str(signalled))

    def stopped(self, by: str) -> None:
        """It was told to end, by whom; the first counts."""
        self._stopped = self._stopped or by

    def end(self, at: float) -> None:
        """The command has ended."""
        self._ended_at = at

    @property
    def cause(self) -> str | None:
        """What made the command end; ``None`` if it ended of its own accord."""
        if self._stopped is not None:
            return self._stopped
        if self._typed is not None and self._ended_at - self._typed.at < self._grace:
            return str(self._typed)
        return None

    @property
    def grace_left(self) -> float:
        """The seconds of the grace that are left, since the first signal that asked to end."""
        asked_at = time.monotonic() if self._asked_at is None else self._asked_at
        return asked_at + self._grace - time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether a person has just now tried to end it."""
        return time.monotonic() - self._typed_at < self._grace
