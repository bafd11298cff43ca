"""Log lines that a stranger can cause: the first few at once, the rest counted."""

from __future__ import annotations

import time
from collections.abc import Callable

# The lines that one source may cause at once, and how many more a second.
FIRST = 200
A_SECOND = 1.0
# The same for all sources together, who may have many addresses.
FIRST_OF_ALL = 1_000
A_SECOND_OF_ALL = 5.0
# Of how many sources the counts are kept.
SOURCES = 1_000


class _Allowance:
    """So many at once, then so many a second."""

    __slots__ = ("_at", "_left", "_rate", "_size", "kept_back", "since")

    def __init__(self, size: float, rate: float, now: float) -> None:
        self._size = self._left = size
        self._rate = rate
        self._at = now
        self.kept_back = 0
        # When the first of those was.
        self.since = now

    def has(self, now: float) -> bool:
        """Whether there is one left."""
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= 1

    def take(self) -> None:
        """Use one up."""
        self._left -= 1


class Repeats:
    """Decides which lines of one kind are written. Bounded in lines and in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Allowance(FIRST_OF_ALL, A_SECOND_OF_ALL, clock())
        # The longest silent comes first.
        self._sources: dict[str, _Allowance] = {}

    def __len__(self) -> int:
        """Of how many sources counts are kept."""
        return len(self._sources)

    def note(self, source: str) -> int | None:
        """How many lines were kept back since the source's last one; ``None``: this one too."""
        now = self._clock()
        mine = self._sources.pop(source, None) or _Allowance(FIRST, A_SECOND, now)
        self._sources[source] = mine
        if len(self._sources) > SOURCES:
            oldest = next(iter(self._sources))
            self._all.kept_back += self._sources.pop(oldest).kept_back
        if not mine.has(now) or not self._all.has(now):
            if not mine.kept_back:
                mine.since = now
            mine.kept_back += 1
            return None
        mine.take()
        self._all.take()
        # Those of sources that are not remembered any more are told with whichever comes next.
        kept_back = mine.kept_back + self._all.kept_back
        mine.kept_back = self._all.kept_back = 0
        return kept_back

    def left(self, seconds: float) -> tuple[int, int, str]:
        """How many have been kept back for so long without a line that tells of them.

        Of how many sources, and the one of most. They are told now, and will not be told again.
        """
        now = self._clock()
        found = {
            source: mine.kept_back
            for source, mine in self._sources.items()
            if mine.kept_back and now - mine.since >= seconds
        }
        count = sum(found.values()) + self._all.kept_back
        for source in found:
            self._sources[source].kept_back = 0
        self._all.kept_back = 0
        return count, len(found), max(found, key=found.__getitem__, default="various")
