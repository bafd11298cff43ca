"""Writes that the service refused, told without a line for each."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import NamedTuple

from holdfast.errors import HoldfastError

log = logging.getLogger("holdfast")


class _Kind(NamedTuple):
    method: str
    path: str
    code: str


class Refusals:
    """Counts what is refused; :meth:`tell` logs one line for each kind with how many there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._untold: Counter[_Kind] = Counter()
        self._messages: dict[_Kind, str] = {}
        self._told: set[_Kind] = set()

    def note(self, method: str, path: str, error: HoldfastError) -> bool:
        """One more; whether it is the first of its kind."""
        kind = _Kind(method, path, error.code)
        with self._lock:
            is_new = kind not in self._told and kind not in self._untold
            self._untold[kind] += 1
            self._messages[kind] = error.message
        return is_new

    def tell(self) -> None:
        """Say what has not been said yet."""
        with self._lock:
            untold = [(kind, self._messages[kind], n) for kind, n in self._untold.items()]
            told_before = {*self._told}
            self._untold.clear()
            self._messages.clear()
            self._told.update(kind for kind, _, _ in untold)
        for kind, message, count in untold:
            more = " more" if kind in told_before else ""
            times = f" {count}{more} times" if count > 1 or more else ""
            log.warning(
                "holdfast refused to record %s %s%s (%s): %s",
                kind.method,
                kind.path,
                times,
                kind.code,
                message,
            )
