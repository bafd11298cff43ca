"""What the spool keeps, and what it tells of it. Needs the standard library only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.request import PLACEHOLDER, WRITES, Request, is_of_service

# The year 9999.
LAST_TIME = 253_370_764_800.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Entry(NamedTuple):
    """A write that is kept. Its idempotency key is what it is known by."""

    key: str
    method: str
    path: str
    body: str
    placeholder: str | None
    replaces: str | None
    kept_at: float
    tried_at: float | None
    faults: int

    @classmethod
    def read(cls, *columns: Any) -> Entry:
        """What stands in a row, whoever wrote it: a column may hold anything.

        What makes no sense of its own is left out, and a time that is none is long ago. The rest is
        for :attr:`fault` to tell.
        """
        kept = cls(*columns)
        placeholder, replaces = kept.placeholder, kept.replaces
        return kept._replace(
            placeholder=placeholder if _is_placeholder(placeholder) else None,
            replaces=replaces if _is_text(replaces) else None,
            kept_at=moment_of(kept.kept_at),
            tried_at=None if kept.tried_at is None else moment_of(kept.tried_at),
            faults=_count(kept.faults),
        )

    @property
    def request(self) -> Request:
        """What is to be sent."""
        return Request(self.method, self.path, json.loads(self.body), idempotency_key=self.key)

    @property
    def fault(self) -> str | None:
        """Why it cannot be one of ours, whoever wrote it into the file; ``None`` if it can."""
        if self.method not in WRITES:
            return f"{self.method!r} changes nothing"
        if not _is_text(self.path) or not is_of_service(self.path):
            return f"{self.path!r} is no path of the service"
        if not _is_text(self.key) or not _KEY.fullmatch(self.key):
            return f"{self.key!r} is no idempotency key"
        try:
            is_object = isinstance(json.loads(self.body), dict)
        except (TypeError, ValueError, RecursionError):
            is_object = False
        return None if is_object else "its body is no JSON object"


class Refused(NamedTuple):
    """A write that the service refused when it was sent at last. Times are seconds since 1970."""

    method: str
    path: str
    body: str
    kept_at: float
    refused_at: float
    code: str
    message: str


class Left(NamedTuple):
    """What a process leaves behind, but for heartbeats: kept on disk, and lost with its memory."""

    kept: int
    lost: int


class OtherKey(NamedTuple):
    """What waits for another API key: the key's id, how many writes, and since when."""

    key_id: str
    writes: int
    since: float


class OtherAddress(NamedTuple):
    """What waits for another address: what to call it by, how many writes, and since when."""

    address: str
    writes: int
    since: float
    path: Path


class SpoolStats(NamedTuple):
    """How many writes wait to be sent, wait for another API key, were refused."""

    kept: int
    of_other_keys: int
    refused: int


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _is_placeholder(value: object) -> bool:
    return isinstance(value, str) and PLACEHOLDER.fullmatch(value) is not None


def moment_of(value: object) -> float:
    """A time as it stands in a file, in seconds since 1970; long ago if it is none."""
    is_one = isinstance(value, (int, float)) and 0 <= value < LAST_TIME
    return float(value) if is_one else 0.0  # type: ignore[arg-type]


def _is_text(value: object) -> bool:
    # The file may hold anything in any column.
    return isinstance(value, str)
