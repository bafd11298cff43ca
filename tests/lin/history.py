"""What callers of the claims did and were told, with one clock's times around each call."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import orjson

# Claim: also while it is someone else's, which may only be refused. Take over: from a silent
# holder. End: the holder's, which lets go of all that it has. Write: any write under a fence.
Verb = Literal["claim", "take over", "release", "end", "verify", "write", "read"]

# Unknown: the answer was lost. It may have happened at any time since, or it may not, or it may
# yet.
Outcome = Literal["ok", "refused", "unknown"]

NEVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call that concerned one item, and its answer.

    ``seen_holder`` and ``seen_fence`` are what the answer says of the item's claim: after the
    call if it was carried out, at that moment if it was refused.
    """

    item: str
    verb: Verb
    outcome: Outcome
    # Seconds of the recorder's monotonic clock.
    invoked: float
    answered: float = NEVER
    # On whose behalf, and the fence that was sent along.
    holder: str | None = None
    fence: int | None = None
    # Whether the answer says that a grant is new (201), not one that the holder has (200).
    anew: bool = False
    code: str | None = None
    seen_holder: str | None = None
    seen_fence: int | None = None

    def __str__(self) -> str:
        when = f"{self.invoked:.4f} to {self.answered:.4f}"
        said = {
            "by": self.holder,
            "under fence": self.fence,
            "told holder": self.seen_holder,
            "told fence": self.seen_fence,
        }
        facts = ", ".join(f"{name} {value}" for name, value in said.items() if value is not None)
        answer = self.code or ("ok, anew" if self.anew else self.outcome)
        return f"{self.verb} {facts}: {answer} ({when})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign of life of a holder: certain if it was acknowledged and is surely one."""

    holder: str
    invoked: float
    answered: float = NEVER
    is_certain: bool = True


class Vitals:
    """For how long a holder was silent, as far as the recorder can tell."""

    def __init__(self, signs: Iterable[Sign]) -> None:
        of: dict[str, list[Sign]] = defaultdict(list)
        for sign in signs:
            of[sign.holder].append(sign)
        self._earliest = {holder: _Highest.when_answered(known) for holder, known in of.items()}
        self._latest = {holder: _Highest.when_invoked(known) for holder, known in of.items()}

    def last_surely(self, holder: str, before: float) -> float:
        """The holder's last sign of life that surely was before this came no earlier than then."""
        known = self._earliest.get(holder)
        return known.up_to(before) if known else -math.inf

    def last_possibly(self, holder: str, until: float) -> float:
        """The holder's last sign of life until then came no later than this."""
        known = self._latest.get(holder)
        return min(known.below(until), until) if known else -math.inf


@dataclass(frozen=True, slots=True)
class _Highest:
    """For sorted keys, the highest value among all up to a key."""

    keys: Sequence[float]
    values: Sequence[float]

    @classmethod
    def when_answered(cls, signs: Iterable[Sign]) -> _Highest:
        pairs = sorted((s.answered, s.invoked) for s in signs if s.is_certain)
        return cls([k for k, _ in pairs], list(accumulate((v for _, v in pairs), max)))

    @classmethod
    def when_invoked(cls, signs: Iterable[Sign]) -> _Highest:
        pairs = sorted((s.invoked, s.answered) for s in signs)
        return cls([k for k, _ in pairs], list(accumulate((v for _, v in pairs), max)))

    def up_to(self, key: float) -> float:
        return self._before(bisect_right(self.keys, key))

    def below(self, key: float) -> float:
        return self._before(bisect_left(self.keys, key))

    def _before(self, index: int) -> float:
        return self.values[index - 1] if index else -math.inf


def by_item(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Each item's operations: it is a register of its own."""
    items: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        items[operation.item].append(operation)
    return dict(items)


def write(path: Path, records: Iterable[Operation | Sign]) -> None:
    """Keep a recording, a line for each call."""
    lines = (
        orjson.dumps(
            {"is": type(record).__name__, **asdict(record)}, option=orjson.OPT_APPEND_NEWLINE
        )
        for record in records
    )
    path.write_bytes(b"".join(lines))


def read(path: Path) -> Iterator[Operation | Sign]:
    """A recording that was kept. JSON has no infinity: ``null`` is an answer that never came."""
    for line in path.read_bytes().splitlines():
        record = orjson.loads(line)
        kind = Operation if record.pop("is") == "Operation" else Sign
        answered = record.pop("answered")
        yield kind(**record, answered=NEVER if answered is None else answered)
