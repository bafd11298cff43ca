"""The database's clock, carried on between two looks at it (spec 3: one clock)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

TRUSTED_SECONDS = 5.0
# Two looks may differ by this much though nobody has set the database's clock.
TURNED_BACK_SECONDS = 1.0
# An answer that took longer may be old by as much.
PROMPT_SECONDS = 0.1
ATTEMPTS = 5


def _seconds() -> Callable[[], float]:
    """Seconds that go on while the host sleeps, which :func:`time.monotonic` leaves out."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS
        if (clock := getattr(time, name, None)) is not None:
            return lambda: time.clock_gettime(clock)
    return time.monotonic


class DatabaseClock:
    """Tells the database's time without a question each time.

    ``seconds`` is the host's own clock, which only has to be steady.
    """

    def __init__(self, seconds: Callable[[], float] | None = None) -> None:
        self.seconds = seconds or _seconds()
        self._anchor: tuple[datetime, float] | None = None
        self._last: datetime | None = None

    def set(self, now: datetime, asked: float) -> None:
        """Take over what the database said when it was asked, by the host's clock.

        A process may stand still between the database's answer and this line. What came late is
        of no use as long as there is something better.
        """
        here = self.seconds()
        if self._anchor is None or here - asked <= PROMPT_SECONDS:
            self._anchor = (now, here)

    def now(self, ask: Callable[[], datetime]) -> datetime:
        """The time; asks the database when the last look at it is a while ago."""
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
        """A fresh look at the database's clock; late answers are asked for again."""
        for _ in range(ATTEMPTS):
            asked = self.seconds()
            look = ask(), self.seconds()
            if look[1] - asked <= PROMPT_SECONDS:
                break
        return look
