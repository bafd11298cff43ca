"""When the service was reachable, as this process knows it (spec 5).

Every process touches a record in the database while it is reachable. Whether the service was away
follows from the touches of all processes, so that the processes and the SQL views agree.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from application.eventstore.store import EventStore
from domain.liveness import Serving

# Seconds. A longer gap between two touches is an outage; a restart is shorter.
TOLERANCE_SECONDS = 10.0
# Never shorter, whatever the thresholds: a process that was briefly not scheduled was not away.
SHORTEST_TOLERANCE_SECONDS = 0.5
TOUCH_SECONDS = 1.0
TOUCHES_WITHIN_TOLERANCE = 4


def tolerance_seconds(*threshold_seconds: float) -> float:
    """The longest gap between touches that is not an outage: at most half the shortest threshold.

    A shorter gap counts as silence. An agent that sends two heartbeats within each threshold is
    not taken for silent because of it.
    """
    shortest = min(threshold_seconds)
    return min(TOLERANCE_SECONDS, max(SHORTEST_TOLERANCE_SECONDS, shortest / 2))


class ServingRecord:
    """The record as last read by this process. Thread-safe.

    ``store`` has connections of its own, so that touches and commands do not wait for each other.
    """

    def __init__(self, store: EventStore, tolerance_seconds: float) -> None:
        self._store = store
        self.tolerance_seconds = tolerance_seconds
        self._last: tuple[datetime, Serving] | None = None

    @property
    def pause_seconds(self) -> float:
        """Seconds between two touches."""
        return min(TOUCH_SECONDS, self.tolerance_seconds / TOUCHES_WITHIN_TOLERANCE)

    def touch(self) -> Serving:
        """Record that this process is reachable now. Raises ``Unavailable``, ``TimedOut``."""
        self._last = self._store.touch_serving(self.tolerance_seconds)
        return self._last[1]

    def at(self, now: datetime) -> Serving:
        """Since when the service has been reachable, for a decision at time ``now``.

        A process that was frozen or cut off from the database has an old value; it is read again
        if it is too old for ``now``. This does not touch the record: deciding a command does not
        show that it can be stored. Raises ``Unavailable``, ``TimedOut``.
        """
        last = self._last
        if last is None or abs(now - last[0]) > timedelta(seconds=self.tolerance_seconds):
            last = self._last = self._store.serving()
        return last[1]

    def carried_out(self) -> None:
        """After a command was stored: touch the record, if it says that the service was away."""
        last = self._last
        if last is not None and last[0] == last[1].since:
            # The command is durable even if this fails.
            with suppress(Exception):
                self.touch()

    def close(self) -> None:
        """Close the connection."""
        self._store.close()
