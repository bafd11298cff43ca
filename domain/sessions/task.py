"""A unit of a session's progress: an entity inside its session and its stream (S4 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from domain.aggregate import Json, merged
from domain.errors import InvalidTransition

TaskStatus = Literal["pending", "in_progress", "completed", "failed", "blocked"]
TASK_STATUSES: tuple[TaskStatus, ...] = get_args(TaskStatus)

FINISHED: frozenset[TaskStatus] = frozenset({"completed", "failed"})

# From a status to those it may change to (spec 7). Blocked is reached from anywhere and leads
# anywhere; what is finished stays finished unless it is blocked.
TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    "pending": frozenset({"in_progress", "completed", "failed", "blocked"}),
    "in_progress": frozenset({"completed", "failed", "blocked"}),
    "blocked": frozenset({"pending", "in_progress", "completed", "failed"}),
    "completed": frozenset({"blocked"}),
    "failed": frozenset({"blocked"}),
}


@dataclass(slots=True, kw_only=True)
class Task:
    """One task as its session knows it."""

    task_id: str
    task_name: str
    created_at: datetime
    updated_at: datetime
    status: TaskStatus = "pending"
    github_issue_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_message: str | None = None
    metadata: Json = field(default_factory=dict)
    carried_from: str | None = None

    def require_transition(self, to: TaskStatus) -> None:
        """Raise :class:`InvalidTransition` unless this task may become ``to``."""
        if to not in TRANSITIONS[self.status]:
            raise InvalidTransition(
                f"A task cannot go from {self.status} to {to}.",
                details={"task_id": self.task_id, "from": self.status, "to": to},
            )

    def become(self, status: TaskStatus, at: datetime, error_message: str | None = None) -> None:
        """Take a new status with the times that go with it (S4 3.1)."""
        self.status = status
        self.error_message = error_message
        if status == "in_progress" or status in FINISHED:
            self.started_at = self.started_at or at
        self.completed_at = at if status in FINISHED else None
        self.updated_at = at

    def annotate(self, metadata: Json | None, at: datetime) -> None:
        """Merge metadata into the task's own."""
        self.metadata = merged(self.metadata, metadata)
        self.updated_at = at
