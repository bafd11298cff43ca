"""The database's time in this process (spec 3: one clock)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

CLOCK_TRUSTED_SECONDS = 5.0


class DatabaseClock:
    """The database's time, carried on by this host's monotonic clock between two looks at it."""

    def __init__(self) -> None:
        self._anchor: tuple[datetime, float] | None = None
        self._last: datetime | None = None

    def set(self, now: datetime) -> None:
        """Take over what the database just said."""
        self._anchor = (now, time.monotonic())

    def now(self, ask: Callable[[], datetime]) -> datetime:
        """The time; asks the database when the last look at it is a while ago."""
        if self._anchor is None or time.monotonic() - self._anchor[1] > CLOCK_TRUSTED_SECONDS:
            self.set(ask())
        assert self._anchor is not None
        now = self._anchor[0] + timedelta(seconds=time.monotonic() - self._anchor[1])
        # Two looks differ by the way there and back; that must not turn time back.
        if self._last is not None and now < self._last < now + timedelta(seconds=1):
            now = self._last
        self._last = now
        return now
