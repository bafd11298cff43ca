"""The positions up to which this process's projector has folded, for readers that wait."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict


class Progress:
    """Positions by namespace; set by the projector's thread, awaited in event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[str, int] = defaultdict(int)
        # Set while a reader waits that came after the projector's last look at the log.
        self.wanted = threading.Event()
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = defaultdict(list)

    def advance(self, namespace: str, position: int) -> None:
        """The read models include everything up to ``position``."""
        with self._lock:
            self._positions[namespace] = position
            waiting = self._waiting[namespace]
            ready = [future for target, future in waiting if target <= position]
            if ready:
                self._waiting[namespace] = [w for w in waiting if w[0] > position]
        for future in ready:
            _wake(future)

    def position(self, namespace: str) -> int:
        """The position up to which this process's read models are known to be folded."""
        return self._positions.get(namespace, 0)

    async def wait(self, namespace: str, position: int, seconds: float) -> None:
        """Return once ``position`` is reached, or after ``seconds``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (position, future)
        with self._lock:
            if self._positions[namespace] >= position:
                return
            self._waiting[namespace].append(entry)
        self.wanted.set()
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            pass
        finally:
            if not future.done() or future.cancelled():  # the time is up, or who waited has gone
                with self._lock:
                    waiting = self._waiting[namespace]
                    if entry in waiting:
                        waiting.remove(entry)


def _wake(future: asyncio.Future[None]) -> None:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    try:
        future.get_loop().call_soon_threadsafe(wake)
    except RuntimeError:
        return  # the loop has been closed, nobody waits
