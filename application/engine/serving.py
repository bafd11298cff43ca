"""Since when the service has been there to hear its agents: what a process knows of it (spec 5).

Every process touches the record in the database while it can be reached. Whether the service was
away is decided there, by what all processes have touched, so that they and the views agree.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from application.eventstore.store import EventStore
from domain.liveness import Serving

# A gap between two touches that is longer is an absence. A restart is shorter.
TOLERANCE_SECONDS = 10.0
# No shorter, whatever the thresholds: a process that had no turn for a moment has not been away.
SHORTEST_TOLERANCE_SECONDS = 0.5
TOUCH_SECONDS = 1.0
TOUCHES_WITHIN_TOLERANCE = 4


def tolerance_seconds(*threshold_seconds: float) -> float:
    """How long a gap may be that is no absence: at most half the shortest of these thresholds.

    A gap that is no absence counts as silence. Nobody who beats twice within each threshold is
    taken for silent because of it.
    """
    shortest = min(threshold_seconds)
    return min(TOLERANCE_SECONDS, max(SHORTEST_TOLERANCE_SECONDS, shortest / 2))


class ServingRecord:
    """What the database last told this process. Safe for threads.

    ``store`` is one of its own: a touch waits for nobody, and nobody waits for a touch.
    """

    def __init__(self, store: EventStore, tolerance_seconds: float) -> None:
        self._store = store
        self.tolerance_seconds = tolerance_seconds
        self._last: tuple[datetime, Serving] | None = None

    @property
    def pause_seconds(self) -> float:
        """How long to wait between two touches."""
        return min(TOUCH_SECONDS, self.tolerance_seconds / TOUCHES_WITHIN_TOLERANCE)

    def touch(self) -> Serving:
        """Note that this process can be reached now. Raises ``Unavailable``, ``TimedOut``."""
        self._last = self._store.touch_serving(self.tolerance_seconds)
        return self._last[1]

    def at(self, now: datetime) -> Serving:
        """Since when the service has been there, for a decision at this time.

        A process that was frozen, or cut off from the database, knows it from before: if that is
        too old for ``now``, it asks. It does not touch: that it decides does not mean that it can
        store. Raises ``Unavailable``, ``TimedOut``.
        """
        last = self._last
        if last is None or abs(now - last[0]) > timedelta(seconds=self.tolerance_seconds):
            last = self._last = self._store.serving()
        return last[1]

    def carried_out(self) -> None:
        """Note that a command was carried out: if nobody was there before, this process is now."""
        last = self._last
        if last is not None and last[0] == last[1].since:
            # What was carried out is durable, whatever becomes of this.
            with suppress(Exception):
                self.touch()

    def close(self) -> None:
        """Close the connection."""
        self._store.close()
