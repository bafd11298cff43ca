"""What clients were told: one line for each write, on disk before the client goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import orjson

# Refused: answered with 4xx. Unknown: no answer, or 503 or 504, and no key to ask again with.
# Broken: an answer that the service must never give.
Outcome = Literal["acknowledged", "refused", "unknown", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A write and its outcome.

    ``effects`` are the event types of which exactly one, in ``stream`` and with these ``facts`` in
    its payload, is what the write was for; none when it may have had nothing to do. ``mark`` is
    the write's own, wherever it lands: it tells even of writes without an answer.
    """

    command: str
    method: str
    path: str
    outcome: Outcome
    attempts: int = 1
    status: int | None = None
    code: str | None = None
    key: str | None = None
    mark: str | None = None
    request_id: str | None = None
    position: int | None = None
    stream: str | None = None
    effects: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


class Ledger:
    """One client's file. What ``note`` has returned from outlives everything."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def note(self, entry: Entry) -> None:
        self._file.write(orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE))
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Entry]:
    """Every entry of every ledger in a folder."""
    for path in sorted(folder.glob("*.ledger")):
        for line in path.read_bytes().splitlines():
            noted = orjson.loads(line)
            yield Entry(**{**noted, "effects": tuple(noted["effects"])})
