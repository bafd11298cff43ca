"""The commands that the engine decides together, and what one append stores for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from application.engine.submission import Job
from application.engine.unit_of_work import Reply, UnitOfWork
from application.eventstore.mapper import NewRow
from application.eventstore.records import NewReceipt
from domain.aggregate import Aggregate, Json


@dataclass(slots=True)
class Batch:
    """What one append writes, and the replies to give once it is durable."""

    work: UnitOfWork
    rows: list[NewRow] = field(default_factory=list)
    receipts: list[NewReceipt] = field(default_factory=list)
    replies: list[tuple[Job, Reply, bytes, int]] = field(default_factory=list)
    # The version at which each stream was first seen in this batch.
    versions: dict[str, int] = field(default_factory=dict)
    written: dict[str, Aggregate] = field(default_factory=dict)
    # Bytes of the requests that wrote to each stream; bytes to store in all.
    written_bytes: dict[str, int] = field(default_factory=dict)
    size: int = 0
    # Snapshots to store once the batch is stored.
    snapshots: list[Json] = field(default_factory=list)

    def first_seen(self) -> dict[str, int]:
        """The versions that decisions rest on, including those the current command has read."""
        seen = self.work.seen.items()
        return {s: a.version - len(a.pending) for s, a in seen} | self.versions

    def read_only(self) -> dict[str, int]:
        """Versions of the streams that were read for a decision but are not written."""
        return {s: v for s, v in self.versions.items() if s not in self.written}


@dataclass(slots=True, eq=False)
class Round:
    """The jobs of one namespace that are decided together and stored by one append."""

    namespace: str
    all: Sequence[Job]
    # Not carried out yet: to decide now, and after the next append.
    jobs: list[Job] = field(init=False)
    later: list[Job] = field(default_factory=list)
    # To decide only after the others are stored, however often those start again.
    postponed: list[Job] = field(default_factory=list)
    batch: Batch | None = None
    is_decided: bool = False

    def __post_init__(self) -> None:
        self.jobs = list(self.all)

    def begin_anew(self) -> None:
        """Drop all decisions; every job that is left is decided again."""
        self.jobs, self.later = [*self.jobs, *self.later], []
        self.batch, self.is_decided = None, False

    def go_on(self) -> None:
        """The decided jobs are stored or answered; continue with the rest."""
        self.jobs = []
        self.begin_anew()
        self.jobs += self.postponed
        self.postponed = []

    @property
    def left(self) -> list[Job]:
        """The jobs that are not carried out yet."""
        return [*self.jobs, *self.later, *self.postponed]


class Tainted(Exception):
    """A command was refused after it had changed aggregates: the batch must be decided again."""

    def __init__(self, job: Job, error: BaseException) -> None:
        super().__init__(str(error))
        self.job = job
        self.error = error
        # Whether the streams that the refusal rests on were proved unchanged, so that it stands.
        self.stands = False
