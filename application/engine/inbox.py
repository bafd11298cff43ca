"""What waits for the writer, in a line for each namespace: who sends much waits behind himself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from application.engine.submission import Job


class Inbox:
    """Lines of commands. Safe for threads: event loops put, the writer takes.

    Sizes are those of the requests, in bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Job]] = {}
        # Whose turn it is, and who comes after.
        self._turns: deque[str] = deque()
        self._sizes: dict[str, int] = {}
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """How large all that waits is."""
        return self._size

    def of(self, namespace: str) -> tuple[int, int]:
        """How many of a namespace's commands wait, and how large they are together."""
        # Two looks, each whole in itself: whoever bounds what waits needs no more, and every
        # request asks.
        return len(self._lines.get(namespace, ())), self._sizes.get(namespace, 0)

    def put(self, jobs: Sequence[Job]) -> None:
        """Add commands at the end of their namespaces' lines."""
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
        """The next commands of the namespace whose turn it is: at least one, if any waits."""
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
        """How many commands wait in the line whose turn it is."""
        with self._lock:
            return len(self._lines[self._turns[0]]) if self._turns else 0

    def clear(self) -> list[Job]:
        """Take all that is left."""
        with self._lock:
            left = [job for line in self._lines.values() for job in line]
            self._lines.clear()
            self._sizes.clear()
            self._turns.clear()
            self._count = self._size = 0
            return left
