"""A database that is away: said without filling the log, and explained where that is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

SAY_AGAIN_SECONDS = 60.0

Explanation = Callable[[], str | None]

_explanation: Explanation | None = None


def explained_by(explanation: Explanation) -> None:
    """Have refusals tell why the database is away, as far as this knows it, in plain words."""
    global _explanation
    _explanation = explanation


def message() -> str | None:
    """What whoever is refused is told; None for the standard message."""
    cause = _explanation() if _explanation is not None else None
    if cause is None:
        return None
    return f"The database cannot be reached: {cause}. Nothing that was acknowledged is lost."


class Outage:
    """What a loop says of a database that it waits for: at once, then once a minute, and after."""

    def __init__(self, log: logging.Logger, waiting: str) -> None:
        self._log = log
        self._waiting = waiting
        self._since: float | None = None
        self._said = 0.0

    def goes_on(self, error: str) -> None:
        """Note that the database is away, or still is."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._said < SAY_AGAIN_SECONDS:
            return
        self._said = now
        about = {"error": error, "for_seconds": round(now - self._since, 1)}
        cause = _explanation() if _explanation is not None else None
        self._log.warning(self._waiting, extra={**about, "cause": cause} if cause else about)

    def is_over(self) -> None:
        """Note that the database is there."""
        if self._since is not None:
            about = {"for_seconds": round(time.monotonic() - self._since, 1)}
            self._log.warning("database_is_back", extra=about)
            self._since = None
