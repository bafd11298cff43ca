"""What the command engine decides and stores together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from application.engine.submission import Job
from application.engine.unit_of_work import Reply, UnitOfWork
from application.eventstore.mapper import NewRow
from application.eventstore.store import NewReceipt
from domain.aggregate import Aggregate, Json


@dataclass(slots=True)
class Batch:
    """What one append is to write, and for whom."""

    work: UnitOfWork
    rows: list[NewRow] = field(default_factory=list)
    receipts: list[NewReceipt] = field(default_factory=list)
    replies: list[tuple[Job, Reply, bytes, int]] = field(default_factory=list)
    # The version at which each stream was first seen in this batch.
    versions: dict[str, int] = field(default_factory=dict)
    written: dict[str, Aggregate] = field(default_factory=dict)
    # How large the requests were that wrote to each stream, and what is stored in all.
    written_bytes: dict[str, int] = field(default_factory=dict)
    size: int = 0
    # States to keep once the batch is stored.
    snapshots: list[Json] = field(default_factory=list)

    def first_seen(self) -> dict[str, int]:
        """All versions, with those of what the present command has seen."""
        seen = self.work.seen.items()
        return {s: a.version - len(a.pending) for s, a in seen} | self.versions

    def read_only(self) -> dict[str, int]:
        """The streams that decisions rest on and that this append does not write."""
        return {s: v for s, v in self.versions.items() if s not in self.written}


@dataclass(slots=True, eq=False)
class Round:
    """The jobs of one namespace that are decided together and stored by one append."""

    namespace: str
    all: Sequence[Job]
    # Still to be carried out: now, and after the next append.
    jobs: list[Job] = field(init=False)
    later: list[Job] = field(default_factory=list)
    # Not to be decided again before the others are stored, however often these begin anew.
    postponed: list[Job] = field(default_factory=list)
    batch: Batch | None = None
    is_decided: bool = False

    def __post_init__(self) -> None:
        self.jobs = list(self.all)

    def begin_anew(self) -> None:
        """Nothing is decided: what is left is carried out from the beginning."""
        self.jobs, self.later = [*self.jobs, *self.later], []
        self.batch, self.is_decided = None, False

    def go_on(self) -> None:
        """What was decided is stored or answered: the rest comes next."""
        self.jobs = []
        self.begin_anew()
        self.jobs += self.postponed
        self.postponed = []

    @property
    def left(self) -> list[Job]:
        """All that is not carried out yet."""
        return [*self.jobs, *self.later, *self.postponed]


class Tainted(Exception):
    """A command was refused half-way through changing aggregates: the batch starts anew."""

    def __init__(self, job: Job, error: BaseException) -> None:
        super().__init__(str(error))
        self.job = job
        self.error = error
        # Whether nothing that it rests on has moved.
        self.stands = False
