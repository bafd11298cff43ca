"""Commands that wait for the writer, in a queue per namespace; the namespaces take turns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from application.engine.submission import Job


class Inbox:
    """A queue per namespace. Thread-safe: event loops put, the writer takes.

    Sizes are those of the requests, in bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Job]] = {}
        # The namespaces in the order of their turns.
        self._turns: deque[str] = deque()
        self._sizes: dict[str, int] = {}
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of all waiting commands."""
        return self._size

    def of(self, namespace: str) -> tuple[int, int]:
        """The number of a namespace's waiting commands, and their bytes."""
        # Read without the lock: the two may differ by a command, which is exact enough for a
        # limit, and every request asks.
        return len(self._lines.get(namespace, ())), self._sizes.get(namespace, 0)

    def put(self, jobs: Sequence[Job]) -> None:
        """Add commands at the end of their namespaces' queues."""
        with self._lock:
            for job in jobs:
                namespace, size = job.context.namespace, job.context.size
                line = self._lines.get(namespace)
                if line is None:
                    line = self._lines[namespace] = deque()
                    self._sizes[namespace] = 0
                    self._turns.append(namespace)
                line.append(job)
                self._sizes[namespace] += size
                self._size += size
            self._count += len(jobs)

    def take(self, count: int, size: int) -> tuple[str, list[Job]] | None:
        """Take commands of the next namespace: at most ``count`` and ``size``, but at least one."""
        with self._lock:
            if not self._turns:
                return None
            namespace = self._turns.popleft()
            line = self._lines[namespace]
            taken: list[Job] = []
            left = size
            while line and len(taken) < count and (left >= line[0].context.size or not taken):
                job = line.popleft()
                taken.append(job)
                left -= job.context.size
            gone = size - left
            self._count -= len(taken)
            self._size -= gone
            if line:
                self._sizes[namespace] -= gone
                self._turns.append(namespace)
            else:
                del self._lines[namespace], self._sizes[namespace]
            return namespace, taken

    def next_count(self) -> int:
        """The number of commands that wait in the next namespace's queue."""
        with self._lock:
            return len(self._lines[self._turns[0]]) if self._turns else 0

    def clear(self) -> list[Job]:
        """Remove and return all waiting commands."""
        with self._lock:
            left = [job for line in self._lines.values() for job in line]
            self._lines.clear()
            self._sizes.clear()
            self._turns.clear()
            self._count = self._size = 0
            return left
