"""One orchestrated run of a project on a machine, with its tasks (S4 2, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, get_args

from domain import liveness
from domain.aggregate import Event, Json, merged
from domain.claim import is_work_item
from domain.errors import (
    AlreadyRecovered,
    InvalidTransition,
    NotArchivable,
    NotRecoverable,
    SessionEnded,
    SessionNotFound,
    Superseded,
    TaskNotFound,
)
from domain.holder import Holder
from domain.task import Task, TaskStatus

SessionStatus = Literal["active", "paused", "completed", "failed", "stalled"]
SESSION_STATUSES: tuple[SessionStatus, ...] = get_args(SessionStatus)
LIVE: frozenset[SessionStatus] = frozenset({"active", "paused", "stalled"})

# Metadata that the service itself sets (S4 3.2-3.4): a successor does not inherit it.
SERVICE_METADATA = frozenset(
    {"error_message", "recovery", "recovery_prepared_at", "archived", "archived_at"}
)


class SessionEvent(Event):
    """A session's event."""


class SessionCreated(SessionEvent):
    """A session was opened, or opened in the place of one that it recovers."""

    event_type = "session_created"
    project_id: str
    machine_id: str
    docker_slot: int | None = None
    metadata: Json | None = None
    instance_id: str | None = None
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None
    stall_threshold_ms: int | None = None
    recovered_from: str | None = None

    def change(self, session: Session) -> None:
        session.project_id, session.machine_id = self.project_id, self.machine_id
        session.docker_slot = self.docker_slot
        session.metadata = merged({}, self.metadata)
        session.instance_id, session.hostname = self.instance_id, self.hostname
        session.tty, session.codebase = self.tty, self.codebase
        session.stall_threshold_ms = self.stall_threshold_ms
        session.recovered_from = self.recovered_from
        session.created_at = session.started_at = session.last_heartbeat = self.timestamp


class SessionHeartbeat(SessionEvent):
    """The session is alive (S4 2.2)."""

    event_type = "session_heartbeat"
    compact = True
    current_task_id: str | None = None
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.last_heartbeat = self.timestamp
        if self.current_task_id is not None:
            session.current_task_id = self.current_task_id
        session.metadata = merged(session.metadata, self.metadata)


class SessionUpdated(SessionEvent):
    """The current task or the metadata changed. An empty ``current_task_id`` clears it."""

    event_type = "session_updated"
    current_task_id: str | None = None
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        if self.current_task_id is not None:
            session.current_task_id = self.current_task_id or None
        session.metadata = merged(session.metadata, self.metadata)


class SessionPaused(SessionEvent):
    """The session rests on purpose; it never stalls while it does."""

    event_type = "session_paused"

    def change(self, session: Session) -> None:
        session.status = "paused"


class SessionActivated(SessionEvent):
    """A paused or stalled session works again. Whoever says so has shown that it is alive."""

    event_type = "session_activated"

    def change(self, session: Session) -> None:
        session.status = "active"
        session.last_heartbeat = self.timestamp


class SessionStalled(SessionEvent):
    """No heartbeat for longer than the threshold, or someone said so; it may yet come back."""

    event_type = "session_stalled"
    reason: Literal["no_heartbeat", "marked"]
    age_ms: int

    def change(self, session: Session) -> None:
        session.status = "stalled"


class SessionCompleted(SessionEvent):
    """The session ended well."""

    event_type = "session_completed"

    def change(self, session: Session) -> None:
        session.status, session.outcome = "completed", "completed"
        session.completed_at = self.timestamp


class SessionFailed(SessionEvent):
    """The session ended badly; its metadata keeps the error (S4 3.2)."""

    event_type = "session_failed"
    error_message: str
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.status, session.outcome = "failed", "failed"
        session.completed_at = self.timestamp
        session.metadata = merged(
            session.metadata, {**(self.metadata or {}), "error_message": self.error_message}
        )


class SessionRecoveryPrepared(SessionEvent):
    """Someone is about to recover the session (S4 3.3)."""

    event_type = "session_recovery_prepared"
    machine_cleared: bool = False

    def change(self, session: Session) -> None:
        session.metadata = {
            **session.metadata,
            "recovery_prepared_at": _iso(self.timestamp),
        }
        if self.machine_cleared:
            session.machine_id = None


class SessionRecovered(SessionEvent):
    """A successor carries the work on; this session is over (S4 3.3.d)."""

    event_type = "session_recovered"
    recovered_to: str
    onto_machine_id: str

    def change(self, session: Session) -> None:
        session.status, session.outcome = "completed", "recovered"
        session.recovered_to, session.recovered_onto = self.recovered_to, self.onto_machine_id
        session.completed_at = session.completed_at or self.timestamp
        session.metadata = {
            **session.metadata,
            "recovery": {"outcome": "recovered", "recovered_to": self.recovered_to},
        }


class SessionArchived(SessionEvent):
    """Kept for good: clean-up leaves the session alone (S4 3.4)."""

    event_type = "session_archived"

    def change(self, session: Session) -> None:
        session.archived_at = self.timestamp
        session.metadata = {
            **session.metadata,
            "archived": True,
            "archived_at": _iso(self.timestamp),
        }


class SessionDeleted(SessionEvent):
    """A tombstone: nobody sees the session any more, nor its tasks; the events stay (spec 8)."""

    event_type = "session_deleted"
    task_ids: list[str]

    def change(self, session: Session) -> None:
        session.is_deleted = True
        session.tasks = {}


class TaskEvent(SessionEvent):
    """An event of one of the session's tasks."""

    task_id: str


class TaskCreated(TaskEvent):
    """A task was added; a carried-over one keeps its status and names its origin."""

    event_type = "task_created"
    # The session's: whoever reads the task's events alone knows whose it is.
    project_id: str
    task_name: str
    github_issue_id: str | None = None
    metadata: Json | None = None
    status: TaskStatus = "pending"
    carried_from: str | None = None

    def change(self, session: Session) -> None:
        session.tasks[self.task_id] = Task(
            task_id=self.task_id,
            task_name=self.task_name,
            github_issue_id=self.github_issue_id,
            metadata=merged({}, self.metadata),
            status=self.status,
            carried_from=self.carried_from,
            created_at=self.timestamp,
            updated_at=self.timestamp,
        )


class TaskStarted(TaskEvent):
    """Work on the task began; it is the session's current task."""

    event_type = "task_started"
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.change_task(self.task_id, "in_progress", self.timestamp, self.metadata)
        session.current_task_id = self.task_id


class TaskCompleted(TaskEvent):
    """The task is done."""

    event_type = "task_completed"
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.change_task(self.task_id, "completed", self.timestamp, self.metadata)
        session.clear_current_task(self.task_id)


class TaskFailed(TaskEvent):
    """The task did not succeed."""

    event_type = "task_failed"
    error_message: str
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.change_task(
            self.task_id, "failed", self.timestamp, self.metadata, self.error_message
        )
        session.clear_current_task(self.task_id)


class TaskBlocked(TaskEvent):
    """The task cannot go on for now."""

    event_type = "task_blocked"
    error_message: str | None = None
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.change_task(
            self.task_id, "blocked", self.timestamp, self.metadata, self.error_message
        )


class TaskUpdated(TaskEvent):
    """The task's metadata changed, or a blocked task is pending again."""

    event_type = "task_updated"
    metadata: Json | None = None
    status: Literal["pending"] | None = None

    def change(self, session: Session) -> None:
        task = session.tasks[self.task_id]
        if self.status is not None:
            task.become(self.status, self.timestamp)
        task.annotate(self.metadata, self.timestamp)


class TaskDeleted(TaskEvent):
    """A tombstone: nobody sees the task any more."""

    event_type = "task_deleted"

    def change(self, session: Session) -> None:
        del session.tasks[self.task_id]
        session.clear_current_task(self.task_id)


EVENTS: tuple[type[SessionEvent], ...] = (
    SessionCreated,
    SessionHeartbeat,
    SessionUpdated,
    SessionPaused,
    SessionActivated,
    SessionStalled,
    SessionCompleted,
    SessionFailed,
    SessionRecoveryPrepared,
    SessionRecovered,
    SessionArchived,
    SessionDeleted,
    TaskCreated,
    TaskStarted,
    TaskCompleted,
    TaskFailed,
    TaskBlocked,
    TaskUpdated,
    TaskDeleted,
)


@dataclass(slots=True, kw_only=True)
class Session(Holder):
    """A session's rules. Every verb names the field or the state that stands in its way."""

    category: ClassVar[str] = "session"

    project_id: str = ""
    machine_id: str | None = None
    docker_slot: int | None = None
    status: SessionStatus = "active"
    last_heartbeat: datetime | None = None
    current_task_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    metadata: Json = field(default_factory=dict)
    instance_id: str | None = None
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None
    stall_threshold_ms: int | None = None
    outcome: str | None = None
    recovered_to: str | None = None
    recovered_onto: str | None = None
    recovered_from: str | None = None
    superseded_by: str | None = None
    archived_at: datetime | None = None
    is_deleted: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    tasks: dict[str, Task] = field(default_factory=dict)

    # What is so

    @property
    def is_live(self) -> bool:
        """Active, paused or stalled: not ended."""
        return self.status in LIVE

    def gap_seconds(self, at: datetime) -> float:
        """Seconds since the last sign of life."""
        return liveness.age_seconds(self.last_heartbeat or at, at)

    def threshold_seconds(self, default_ms: int) -> float:
        """This session's own stall threshold, or the service's (S4 2.4)."""
        return (self.stall_threshold_ms or default_ms) / 1000

    def is_overdue(self, at: datetime, default_ms: int) -> bool:
        """Active, and silent for longer than the threshold: stalled, recorded or not."""
        return self.status == "active" and self.gap_seconds(at) > self.threshold_seconds(default_ms)

    def status_at(self, at: datetime, default_ms: int) -> SessionStatus:
        """The status that every reader sees: past the threshold it is ``stalled`` (spec 17)."""
        return "stalled" if self.is_overdue(at, default_ms) else self.status

    # What must be so

    def require_known(self) -> None:
        """Raise :class:`SessionNotFound` for one that never was, or was deleted."""
        if self.version == 0 or self.is_deleted:
            raise SessionNotFound

    def require_writable(self) -> None:
        """Raise unless the session may still write: known, not ended, in its place."""
        self.require_known()
        if self.recovered_to:
            raise SessionEnded(
                "The session was recovered; its successor carries the work on.",
                details={"status": self.status, "recovered_to": self.recovered_to},
            )
        if not self.is_live:
            raise SessionEnded(
                f"The session has {self.status}.",
                details={"status": self.status, "recovered_to": None},
            )
        if self.superseded_by:
            raise Superseded(details={"superseded_by": self.superseded_by})

    def require_not_recovered(self) -> None:
        """Raise :class:`SessionEnded`, naming the successor, once there is one."""
        self.require_known()
        if self.recovered_to:
            self.require_writable()

    def require_task(self, task_id: str) -> Task:
        """The task, or :class:`TaskNotFound`."""
        self.require_known()
        if task_id not in self.tasks:
            raise TaskNotFound
        return self.tasks[task_id]

    # Life

    def open(self, at: datetime, project_id: str, machine_id: str, **rest: object) -> None:
        """The session's first event. ``rest`` are the optional fields of SessionCreated."""
        self.record(SessionCreated, at, project_id=project_id, machine_id=machine_id, **rest)

    def beat(
        self, at: datetime, current_task_id: str | None = None, metadata: Json | None = None
    ) -> None:
        """Note a sign of life; it revives a stalled session and leaves a paused one paused."""
        self.require_writable()
        if self.status == "stalled":
            self.record(SessionActivated, at)
        self.record(
            SessionHeartbeat, at, current_task_id=current_task_id, metadata=metadata or None
        )

    def update(
        self, at: datetime, current_task_id: str | None = None, metadata: Json | None = None
    ) -> None:
        """Change the current task (empty: none) or merge metadata; allowed after the end too."""
        self.require_not_recovered()
        if self.is_live:
            self.require_writable()
        if current_task_id is not None or metadata:
            self.record(
                SessionUpdated, at, current_task_id=current_task_id, metadata=metadata or None
            )

    def change_status(self, at: datetime, status: SessionStatus) -> None:
        """Go to any other live status, or end (spec 7). An ended session goes nowhere."""
        self.require_not_recovered()
        if not self.is_live:
            raise InvalidTransition(
                f"A {self.status} session cannot become {status}.",
                details={"from": self.status, "to": status},
            )
        self.require_writable()
        match status:
            case "active" if self.status != "active":
                self.record(SessionActivated, at)
            case "paused" if self.status != "paused":
                self.record(SessionPaused, at)
            case "stalled":
                self.mark_stalled(at)
            case "completed":
                self.record(SessionCompleted, at)
            case "failed":
                self.fail(at, "The session was set to failed.")
            case _:
                pass

    def fail(self, at: datetime, error_message: str, metadata: Json | None = None) -> None:
        """End badly, and with it every task in progress (S4 3.2.a, b)."""
        self.require_not_recovered()
        if not self.is_live:
            raise InvalidTransition(
                f"A {self.status} session cannot fail.",
                details={"from": self.status, "to": "failed"},
            )
        for task in self.tasks_in("in_progress"):
            self.record(
                TaskFailed,
                at,
                task_id=task.task_id,
                error_message=f"The session failed: {error_message}",
            )
        self.record(SessionFailed, at, error_message=error_message, metadata=metadata or None)

    def mark_stalled(self, at: datetime) -> None:
        """Say that the session is stalled (S4 3.2.d); saying it again changes nothing."""
        self.require_not_recovered()
        if not self.is_live:
            raise InvalidTransition(
                f"A {self.status} session cannot stall.",
                details={"from": self.status, "to": "stalled"},
            )
        if self.status != "stalled":
            self.record(SessionStalled, at, reason="marked", age_ms=self._gap_ms(at))

    def note_overdue(self, at: datetime, default_ms: int) -> bool:
        """Record a stall if there is one at this moment. A heartbeat in between wins."""
        if self.version == 0 or self.is_deleted or not self.is_overdue(at, default_ms):
            return False
        self.record(SessionStalled, at, reason="no_heartbeat", age_ms=self._gap_ms(at))
        return True

    def archive(self, at: datetime) -> None:
        """Keep an ended session for good (S4 3.4.c); again changes nothing."""
        self.require_known()
        if self.is_live:
            raise NotArchivable(details={"status": self.status})
        if self.archived_at is None:
            self.record(SessionArchived, at)

    def delete(self, at: datetime) -> None:
        """Put the tombstone (spec 8)."""
        self.require_known()
        self.record(SessionDeleted, at, task_ids=list(self.tasks))

    # Recovery

    def prepare_recovery(self, at: datetime, clear_machine: bool, default_ms: int) -> None:
        """Note that someone is about to recover the session (S4 3.3.b, f)."""
        self.require_recoverable(at, default_ms)
        self.record(SessionRecoveryPrepared, at, machine_cleared=clear_machine)

    def require_recoverable(self, at: datetime, default_ms: int) -> None:
        """Raise :class:`NotRecoverable` unless failed or stalled."""
        self.require_known()
        status = self.status_at(at, default_ms)
        if status not in ("failed", "stalled"):
            raise NotRecoverable(
                f"Only a failed or stalled session can be recovered; this one is {status}.",
                details={"status": status},
            )

    def require_same_recovery(self, machine_id: str) -> None:
        """Raise :class:`AlreadyRecovered` when it was recovered onto another machine."""
        if self.recovered_onto != machine_id:
            raise AlreadyRecovered(
                details={"recovered_to": self.recovered_to, "machine_id": self.recovered_onto}
            )

    def recover(self, at: datetime, successor: str, machine_id: str) -> None:
        """End in favour of the successor."""
        self.record(SessionRecovered, at, recovered_to=successor, onto_machine_id=machine_id)

    def inheritance(self) -> Json:
        """The metadata that a successor starts with."""
        kept = {k: v for k, v in self.metadata.items() if k not in SERVICE_METADATA}
        return {**kept, "recovery": {"recovered_from": self.key}}

    # Tasks

    def add_task(
        self,
        at: datetime,
        task_id: str,
        task_name: str,
        github_issue_id: str | None = None,
        metadata: Json | None = None,
    ) -> None:
        """Add a pending task (S4 3.1.a)."""
        self.require_writable()
        self.record(
            TaskCreated,
            at,
            task_id=task_id,
            project_id=self.project_id,
            task_name=task_name,
            github_issue_id=github_issue_id,
            metadata=metadata or None,
        )

    def carry_over(self, at: datetime, task_id: str, task: Task) -> None:
        """Take over a predecessor's task: blocked stays blocked, all else starts again."""
        self.record(
            TaskCreated,
            at,
            task_id=task_id,
            project_id=self.project_id,
            task_name=task.task_name,
            github_issue_id=task.github_issue_id,
            metadata=task.metadata or None,
            status="blocked" if task.status == "blocked" else "pending",
            carried_from=task.task_id,
        )

    def update_task(
        self,
        at: datetime,
        task_id: str,
        status: TaskStatus | None = None,
        error_message: str | None = None,
        metadata: Json | None = None,
    ) -> None:
        """Move a task on, or annotate it (S4 3.1). A live status given again only annotates."""
        task = self.require_task(task_id)
        self.require_writable()
        payload: Json = {"task_id": task_id, "metadata": metadata or None}
        if status is None or (status == task.status and task.completed_at is None):
            if metadata:
                self.record(TaskUpdated, at, **payload)
            return
        task.require_transition(status)
        match status:
            case "in_progress":
                self.record(TaskStarted, at, **payload)
            case "completed":
                self.record(TaskCompleted, at, **payload)
            case "failed":
                self.record(TaskFailed, at, error_message=error_message or "", **payload)
            case "blocked":
                self.record(TaskBlocked, at, error_message=error_message, **payload)
            case "pending":
                self.record(TaskUpdated, at, status="pending", **payload)

    def delete_task(self, at: datetime, task_id: str) -> None:
        """Put a task's tombstone."""
        self.require_task(task_id)
        self.require_writable()
        self.record(TaskDeleted, at, task_id=task_id)

    def tasks_in(self, *statuses: TaskStatus) -> Sequence[Task]:
        """The tasks in any of these statuses, oldest first."""
        return [task for task in self.tasks.values() if task.status in statuses]

    # Used by the events

    def touched(self, event: Event) -> None:
        """Everything that happens to the session refreshes ``updated_at``."""
        self.updated_at = event.timestamp

    def displaced(self, resource: str, taken_by: str) -> None:
        """Losing one's place is being superseded, unless by one's own successor."""
        if not is_work_item(resource) and not self.recovered_to:
            self.superseded_by = taken_by

    def change_task(
        self,
        task_id: str,
        status: TaskStatus,
        at: datetime,
        metadata: Json | None,
        error_message: str | None = None,
    ) -> None:
        """Apply a task's new status."""
        task = self.tasks[task_id]
        task.become(status, at, error_message)
        task.annotate(metadata, at)

    def clear_current_task(self, task_id: str) -> None:
        """Forget the current task if it is this one."""
        if self.current_task_id == task_id:
            self.current_task_id = None

    def _gap_ms(self, at: datetime) -> int:
        return int(self.gap_seconds(at) * 1000)


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
