"""An unreachable database: log it without filling the log, and explain it if the cause is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

SAY_AGAIN_SECONDS = 60.0

Explanation = Callable[[], str | None]

_explanation: Explanation | None = None


def explained_by(explanation: Explanation) -> None:
    """Set a function that explains why the database is away; refusals then have its text."""
    global _explanation
    _explanation = explanation


def message() -> str | None:
    """The message for refusals; None for the standard message."""
    cause = _explanation() if _explanation is not None else None
    if cause is None:
        return None
    return f"The database cannot be reached: {cause}. Nothing that was acknowledged is lost."


class Outage:
    """Logs an outage that a loop waits out: at once, then once a minute, and at its end."""

    def __init__(self, log: logging.Logger, waiting: str) -> None:
        self._log = log
        self._waiting = waiting
        self._since: float | None = None
        self._said = 0.0

    def goes_on(self, error: str) -> None:
        """Call when the database is away, or still is."""
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
        """Call when the database has answered."""
        if self._since is not None:
            about = {"for_seconds": round(time.monotonic() - self._since, 1)}
            self._log.warning("database_is_back", extra=about)
            self._since = None
