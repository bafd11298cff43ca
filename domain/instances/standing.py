"""Where an instance's work stands: its epics with their tests, and what was begun and not finished.

Folded from the work events, so that it is known at every point of the stream and a successor can
inherit it (S2, spec 7). Each fact has the sequence numbers of the events that say so. What is
finished is forgotten, so that this stays small however long an instance works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from domain.aggregate import Json

EpicStatus = Literal["started", "completed", "failed"]

# Of each kind as many are kept, the latest: a state is small, or snapshots are rare.
MOST_KEPT = 20
# An agent's own words are kept up to here; the event has all of them.
QUOTED_CHARACTERS = 200


@dataclass(slots=True, kw_only=True)
class Run:
    """The latest run of one type of tests. What it did not tell is None."""

    has_passed: bool = True
    passed: int | None = None
    failed: int | None = None
    total: int | None = None
    evidence: list[int] = field(default_factory=list)
    # The number of a start after which no result came, and how many tests it said there are.
    begun: int | None = None
    announced: int | None = None

    @property
    def has_result(self) -> bool:
        """Whether a result came at all."""
        return bool(self.evidence)

    @property
    def counted(self) -> tuple[int, int] | None:
        """How many tests passed, and of how many; None when that was not told."""
        told_all = self.has_passed or self.failed is not None or self.total is not None
        if self.passed is None or not told_all:
            return None
        return self.passed, max(self.total or 0, self.passed + (self.failed or 0))

    @property
    def not_passing(self) -> int | None:
        """How many tests do not pass; None when that was not told."""
        counted = self.counted
        return self.failed if counted is None else counted[1] - counted[0]

    def end(self, number: int, has_passed: bool, data: Json) -> None:
        """Note a result. Failures told apart, after the passes of the same run, complete it."""
        passed, failed, total = _counts(data)
        if total is None and passed is not None and failed is None:
            total = self.announced
        self.begun, self.announced, begun = None, None, self.begun
        only_passes = self.has_passed and self.passed is not None and begun is None
        only_passes = only_passes and self.failed is None and self.total is None
        if only_passes and not has_passed and failed is not None and passed is total is None:
            self.has_passed, self.failed = False, failed
            self.evidence = [*self.evidence, number]
            return
        if passed is None and failed is not None and total is not None:
            passed = max(0, total - failed)
        self.has_passed, self.evidence = has_passed, [number]
        self.passed, self.failed, self.total = passed, failed, total


@dataclass(slots=True, kw_only=True)
class Epic:
    """An epic as its events tell it."""

    status: EpicStatus | None = None
    # The number of the event that gave it its status.
    number: int | None = None
    reason: str | None = None
    tests_passed: int | None = None
    # The number of the last update of its requirements since it began.
    prd: int | None = None
    # By type; one that was not named is the empty one.
    runs: dict[str, Run] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Note:
    """One thing that someone must still look after."""

    number: int
    text: str | None = None


@dataclass(slots=True, kw_only=True)
class Commits:
    """Commits that no checkpoint knows of."""

    count: int = 0
    last: str | None = None
    number: int = 0


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """The state to come back to: its event, and who made it if another instance did."""

    number: int
    checkpoint_id: str | None = None
    label: str | None = None
    from_instance_id: str | None = None

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"checkpoint “{self.label}”" if self.label else "the checkpoint"


@dataclass(slots=True, kw_only=True)
class Standing:
    """All that is known of the work, by epic, service and pull request; the latest comes last."""

    epics: dict[str, Epic] = field(default_factory=dict)
    planned: dict[str, Note] = field(default_factory=dict)
    failed_validations: dict[str, Note] = field(default_factory=dict)
    pull_requests: dict[str, Note] = field(default_factory=dict)
    deploying: dict[str, Note] = field(default_factory=dict)
    failed_deployments: dict[str, Note] = field(default_factory=dict)
    commits: Commits | None = None

    def follow(self, event_type: str, number: int, data: Json) -> None:
        """Take in a work event; most types say something of their own."""
        match event_type.partition("_")[0]:
            case "epic":
                self._epic(event_type, number, data)
            case "test":
                self._tests(event_type, number, data)
            case "deployment":
                self._deployment(event_type, number, data)
            case _:
                self._other(event_type, number, data)

    @classmethod
    def inherited(cls, standing: Json) -> Standing:
        """What a predecessor knew; the first event of the heir's stream says all of it."""
        known = _ADAPTER.validate_python(standing)
        for epic in known.epics.values():
            epic.number, epic.prd = epic.number and 1, epic.prd and 1
            for run in epic.runs.values():
                run.evidence, run.begun = run.evidence and [1], run.begun and 1
        for note in known._notes():
            note.number = 1
        if known.commits is not None:
            known.commits.number = 1
        return known

    def as_json(self) -> Json:
        """All of it, to be inherited."""
        known: Json = _ADAPTER.dump_python(self, mode="json")
        return known

    def _notes(self) -> Iterator[Note]:
        for notes in (
            self.planned,
            self.failed_validations,
            self.pull_requests,
            self.deploying,
            self.failed_deployments,
        ):
            yield from notes.values()

    def _epic(self, event_type: str, number: int, data: Json) -> None:
        name: str = data["epic_id"]
        if event_type == "epic_planned":
            _keep(self.planned, name, Note(number=number, text=quoted(data.get("feature_name"))))
            return
        self.planned.pop(name, None)
        known = self.epics.pop(name, Epic())
        if event_type == "epic_started":
            begun = known if known.status is None else Epic(runs=known.runs)
            begun.status, begun.number = "started", number
            _keep(self.epics, name, begun)
            return
        known.number, known.reason = number, quoted(data.get("reason"))
        if event_type == "epic_failed":
            known.status = "failed"
        else:
            known.status, known.tests_passed = "completed", data.get("tests_passed")
            # Of those that are done only the last one matters.
            self.epics = {n: epic for n, epic in self.epics.items() if epic.status != "completed"}
        _keep(self.epics, name, known)

    def _tests(self, event_type: str, number: int, data: Json) -> None:
        runs = self._of(data["epic_id"]).runs
        kind = data.get("test_type") or ""
        run = runs.pop(kind, Run())
        if event_type == "test_started":
            run.begun, run.announced = number, _count(data.get("total_count"))
        else:
            run.end(number, event_type == "test_passed", data)
        _keep(runs, kind, run)

    def _deployment(self, event_type: str, number: int, data: Json) -> None:
        service: str = data["service"]
        self.deploying.pop(service, None)
        self.failed_deployments.pop(service, None)
        if event_type == "deployment_started":
            _keep(self.deploying, service, Note(number=number))
        elif event_type == "deployment_failed":
            failed = Note(number=number, text=quoted(data.get("error_message")))
            _keep(self.failed_deployments, service, failed)

    def _other(self, event_type: str, number: int, data: Json) -> None:
        match event_type:
            case "prd_updated":
                self._of(data["epic_id"]).prd = number
            case "validation_failed":
                failed = Note(number=number, text=quoted(data.get("reason")))
                _keep(self.failed_validations, data.get("epic_id") or "", failed)
            case "validation_passed":
                self.failed_validations.pop(data.get("epic_id") or "", None)
            case "pr_created":
                opened = Note(number=number, text=quoted(data.get("title")))
                _keep(self.pull_requests, data["pr_url"], opened)
            case "pr_merged":
                self.pull_requests.pop(data["pr_url"], None)
            case "commit_created":
                count = self.commits.count if self.commits else 0
                self.commits = Commits(count=count + 1, last=quoted(data["commit"]), number=number)
            case "checkpoint_created":
                self.commits = None

    def _of(self, name: str) -> Epic:
        """The epic of this name, which nobody may have started."""
        if name not in self.epics:
            _keep(self.epics, name, Epic())
        return self.epics[name]


# The types that change what is known.
FOLLOWED = frozenset(
    {
        "epic_planned",
        "epic_started",
        "epic_completed",
        "epic_failed",
        "test_started",
        "test_passed",
        "test_failed",
        "validation_passed",
        "validation_failed",
        "commit_created",
        "pr_created",
        "pr_merged",
        "deployment_started",
        "deployment_completed",
        "deployment_failed",
        "prd_updated",
        "checkpoint_created",
    }
)

_ADAPTER: TypeAdapter[Standing] = TypeAdapter(Standing)


def quoted(text: str | None) -> str | None:
    """An agent's words on one line, cut where they grow long; None for nothing but space."""
    line = " ".join((text or "").split())
    short = line if len(line) <= QUOTED_CHARACTERS else f"{line[: QUOTED_CHARACTERS - 1]}…"
    return short or None


def _keep(known: dict[str, Any], name: str, thing: object) -> None:
    known.pop(name, None)
    known[name] = thing
    if len(known) > MOST_KEPT:
        del known[next(iter(known))]


def _counts(data: Json) -> tuple[int | None, int | None, int | None]:
    """Passed, failed and all tests of a result.

    ``test_count`` stands for the passed ones (S2 5) unless these are told too: then it is all.
    """
    passed, failed, total = (
        _count(data.get(name)) for name in ("passed_count", "failed_count", "total_count")
    )
    return passed, failed, _count(data.get("test_count")) if total is None else total


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
