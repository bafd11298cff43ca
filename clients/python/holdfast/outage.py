"""Whether the service can be reached, said once when it changes."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

from holdfast.errors import HoldfastError, Unauthorized

log = logging.getLogger("holdfast")


class Outage:
    """What is known of the service's presence. Starts with the best hopes."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._since: float | None = None
        self._error: HoldfastError | None = None
        self._is_told = False
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def lasts(self) -> bool:
        """Whether the last that was heard was nothing, or a refusal of the API key."""
        return self._error is not None

    @property
    def is_refusal(self) -> bool:
        """Whether it is the API key that does not get through."""
        return isinstance(self._error, Unauthorized)

    @property
    def error(self) -> HoldfastError | None:
        """Why the service cannot be reached, while it lasts."""
        return self._error

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call this method whenever the service is back, as long as its object lives."""
        self._listeners = [known for known in self._listeners if known() is not None]
        self._listeners.append(weakref.WeakMethod(listener))

    def begin(self, error: HoldfastError) -> None:
        """It could not be reached. Nothing is said before it matters: :meth:`tell`."""
        with self._lock:
            is_other = self.lasts and self.is_refusal != isinstance(error, Unauthorized)
            self._since = self._since or time.monotonic()
            self._error = error
            corrects = is_other and self._is_told
            if corrects:
                self._is_told = False
        if corrects:
            self.tell()

    def tell(self) -> None:
        """Log one line for this outage: something could not be recorded because of it."""
        with self._lock:
            error = self._error
            if error is None or self._is_told:
                return
            self._is_told = True
        if isinstance(error, Unauthorized):
            log.error(
                "holdfast refuses this API key, and nothing is recorded at %s: %s. What there is to"
                " record is kept and sent once this key is valid; `holdfast doctor` tells how to"
                " send it under another.",
                self._where,
                error.message,
            )
        else:
            log.warning(
                "holdfast cannot be reached: %s. What there is to record is kept and sent once the"
                " service is back.",
                error.message,
            )

    def end(self) -> None:
        """It answered."""
        with self._lock:
            since, self._since = self._since, None
            was_told, self._is_told = self._is_told, False
            self._error = None
        if since is None:
            return
        if was_told:
            seconds = time.monotonic() - since
            log.info("holdfast at %s is back after %.0f seconds.", self._where, seconds)
        for known in self._listeners:
            listener = known()
            if listener is not None:
                listener()
