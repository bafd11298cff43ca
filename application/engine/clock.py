"""The database's clock, extrapolated between two reads of it (spec 3: one clock)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

TRUSTED_SECONDS = 5.0
# Seconds by which two answers may differ although nobody set the database's clock.
TURNED_BACK_SECONDS = 1.0
# Seconds. An answer that took longer may be too old to use.
PROMPT_SECONDS = 0.1
ATTEMPTS = 5


def _seconds() -> Callable[[], float]:
    """Seconds, counting also while the host sleeps, as :func:`time.monotonic` does not."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS
        if (clock := getattr(time, name, None)) is not None:
            return lambda: time.clock_gettime(clock)
    return time.monotonic


class DatabaseClock:
    """Tells the database's time without a query each time.

    ``seconds`` is the host's own clock, which only has to be steady.
    """

    def __init__(self, seconds: Callable[[], float] | None = None) -> None:
        self.seconds = seconds or _seconds()
        self._anchor: tuple[datetime, float] | None = None
        self._last: datetime | None = None

    def set(self, now: datetime, asked: float) -> None:
        """Set the time to the database's answer; ``asked`` is when it was asked, by ``seconds``.

        The process may have been paused between the answer and this call. An answer that took
        too long is ignored unless there is no other.
        """
        here = self.seconds()
        if self._anchor is None or here - asked <= PROMPT_SECONDS:
            self._anchor = (now, here)

    def now(self, ask: Callable[[], datetime]) -> datetime:
        """The database's time. Queries it if the last answer is too old."""
        # Another thread may set it meanwhile.
        anchor = self._anchor
        if anchor is None or self.seconds() - anchor[1] > TRUSTED_SECONDS:
            anchor = self._anchor = self._looked(ask)
        now = anchor[0] + timedelta(seconds=self.seconds() - anchor[1])
        # Two looks differ by the way there and back; that must not turn time back. A clock that was
        # set back is followed: it is the one that all others go by.
        turned_back = timedelta(seconds=TURNED_BACK_SECONDS)
        if self._last is not None and now < self._last < now + turned_back:
            now = self._last
        self._last = now
        return now

    def _looked(self, ask: Callable[[], datetime]) -> tuple[datetime, float]:
        """Query the database's clock; ask again if the answer took too long."""
        for _ in range(ATTEMPTS):
            asked = self.seconds()
            look = ask(), self.seconds()
            if look[1] - asked <= PROMPT_SECONDS:
                break
        return look
