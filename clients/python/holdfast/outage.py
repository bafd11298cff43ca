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
        self._kind: type[HoldfastError] | None = None
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def lasts(self) -> bool:
        """Whether the last that was heard was nothing, or a refusal of the API key."""
        return self._since is not None

    @property
    def is_refusal(self) -> bool:
        """Whether it is the API key that does not get through."""
        return self.lasts and self._kind is Unauthorized

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call this method whenever the service is back, as long as its object lives."""
        self._listeners = [known for known in self._listeners if known() is not None]
        self._listeners.append(weakref.WeakMethod(listener))

    def begin(self, error: HoldfastError) -> None:
        """It could not be reached. One line is logged for each outage."""
        kind = Unauthorized if isinstance(error, Unauthorized) else type(error)
        with self._lock:
            known = self._since is not None and (self._kind is Unauthorized) == (
                kind is Unauthorized
            )
            self._since = self._since or time.monotonic()
            self._kind = kind
        if known:
            return
        if kind is Unauthorized:
            log.error(
                "holdfast refuses this API key, and nothing is recorded at %s: %s. The work goes"
                " on; what there is to record is kept and sent once the key is valid.",
                self._where,
                error.message,
            )
        else:
            log.warning(
                "holdfast cannot be reached: %s. The work goes on; what there is to record is"
                " kept and sent once the service is back.",
                error.message,
            )

    def end(self) -> None:
        """It answered."""
        with self._lock:
            since, self._since = self._since, None
        if since is None:
            return
        seconds = time.monotonic() - since
        log.info("holdfast at %s is back after %.0f seconds.", self._where, seconds)
        for known in self._listeners:
            listener = known()
            if listener is not None:
                listener()
