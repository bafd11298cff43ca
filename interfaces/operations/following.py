"""Long polls on the log: requests that wait for events share their reads of its head."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from domain.errors import HoldfastError
from projections.kernel.progress import Progress
from projections.kernel.reads import Reads

# How many requests may wait for events at once, per key and in all.
WAITING_EACH = 100
WAITING_ALL = 1_000
# For how many combinations of namespace and types "no such event" is remembered.
MOST_REMEMBERED = 1_000
# Seconds between two reads of the head: another process may be the one that projects.
LOOK_SECONDS = 1.0

# The API key of the current request. Set by the face that serves it.
asker: ContextVar[str] = ContextVar("asker", default="")


class TooManyWaiting(HoldfastError):
    """Too many requests are already waiting for events. Try again later."""

    code = "too_many_waiting"


class Followers:
    """The requests of one process that are waiting for events."""

    def __init__(self, reads: Reads, progress: Progress) -> None:
        self._reads = reads
        self._progress = progress
        self._of: Counter[str] = Counter()
        # By namespace: the head, and when it was read; one read serves all who wait.
        self._known: dict[str, tuple[int, float]] = {}
        # By namespace and types: the range of positions that has no such event.
        self._nothing: dict[tuple[str, ...], tuple[int, int]] = {}
        self._looking: dict[str, asyncio.Task[int]] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the current request as waiting within the block. Raises :class:`TooManyWaiting`."""
        key = asker.get()
        if self._of[key] >= WAITING_EACH or self._of.total() >= WAITING_ALL:
            raise TooManyWaiting(
                f"At most {WAITING_EACH} requests of one key wait for events at once,"
                f" and {WAITING_ALL} of all keys. Try again.",
                details={"waiting": self._of[key]},
            )
        self._of[key] += 1
        try:
            yield
        finally:
            self._of[key] -= 1
            if not self._of[key]:
                del self._of[key]

    def skipped(self, namespace: str, types: Sequence[str], after: int) -> int:
        """The position up to which no such event is known to come after ``after``."""
        begin, end = self._nothing.get((namespace, *types), (0, 0))
        return end if begin <= after < end else after

    def found_nothing(self, namespace: str, types: Sequence[str], after: int, head: int) -> None:
        """Remember that no event of these types lies between a position and the head."""
        if not types or head <= after:
            return
        key = (namespace, *types)
        begin, end = self._nothing.pop(key, (after, after))
        if after <= end and begin <= head:
            after, head = min(after, begin), max(head, end)
        self._nothing[key] = after, head
        if len(self._nothing) > MOST_REMEMBERED:
            del self._nothing[next(iter(self._nothing))]

    def known(self, namespace: str) -> int:
        """The head as last read, without reading it again; the log is at least this long."""
        head, _ = self._known.get(namespace, (0, 0.0))
        return max(head, self._progress.position(namespace))

    async def _look(self, namespace: str) -> int:
        head = await self._reads.head(namespace)
        self._known[namespace] = head, asyncio.get_running_loop().time()
        return head

    async def beyond(self, namespace: str, position: int, seconds: float) -> int:
        """Wait until the head is beyond a position, at most so many seconds; return the head."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            head = await self._recent(namespace)
            left = deadline - loop.time()
            if head > position or left <= 0:
                return head
            await self._progress.wait(namespace, position + 1, min(left, LOOK_SECONDS))

    async def _recent(self, namespace: str) -> int:
        """The head, read again unless it was read a moment ago."""
        _, at = self._known.get(namespace, (0, float("-inf")))
        if asyncio.get_running_loop().time() - at < LOOK_SECONDS / 2:
            return self.known(namespace)
        looking = self._looking.get(namespace)
        if looking is None:
            looking = asyncio.ensure_future(self._look(namespace))
            self._looking[namespace] = looking
            looking.add_done_callback(lambda _: self._looking.pop(namespace, None))
        # Shielded: a client that leaves must not cancel the read that others wait for.
        return await asyncio.shield(looking)
