"""One orchestrated run of a project on a machine, with its tasks (S4 2, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, get_args

from domain.aggregate import Event, Json, require_room, stored_size
from domain.claims.claim import is_work_item
from domain.claims.holder import Holder
from domain.errors import (
    AlreadyRecovered,
    InvalidInput,
    InvalidTransition,
    NotArchivable,
    NotRecoverable,
    SessionEnded,
    SessionNotFound,
    Superseded,
    TaskNotFound,
)
from domain.liveness import ALWAYS, Serving
from domain.sessions.session_events import (
    SessionActivated,
    SessionArchived,
    SessionCompleted,
    SessionCreated,
    SessionDeleted,
    SessionFailed,
    SessionHeartbeat,
    SessionPaused,
    SessionPutDown,
    SessionRecovered,
    SessionRecoveryPrepared,
    SessionStalled,
    SessionTakenUp,
    SessionUpdated,
    TaskBlocked,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskFailed,
    TaskStarted,
    TaskUpdated,
)
from domain.sessions.task import Task, TaskStatus

SessionStatus = Literal["active", "paused", "completed", "failed", "stalled"]
SESSION_STATUSES: tuple[SessionStatus, ...] = get_args(SessionStatus)
LIVE: frozenset[SessionStatus] = frozenset({"active", "paused", "stalled"})

# How many tasks a session has at most, and how many bytes their metadata and errors may have
# together; what is small is not added up.
MAX_TASKS = 5_000
MAX_TASKS_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 1_024

# Metadata that the service itself sets (S4 3.2-3.4): a successor does not inherit it.
SERVICE_METADATA = frozenset(
    {"error_message", "recovery", "recovery_prepared_at", "archived", "archived_at"}
)


@dataclass(slots=True, kw_only=True)
class Session(Holder):
    """A session's rules. Every verb names the field or the state that stands in its way."""

    category: ClassVar[str] = "session"
    state_version: ClassVar[int] = 2

    project_id: str = ""
    machine_id: str | None = None
    docker_slot: int | None = None
    status: SessionStatus = "active"
    current_task_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    metadata: Json = field(default_factory=dict)
    # The instance that works in it, and which one did before the present supervisor came.
    instance_id: str | None = None
    instance_before: str | None = None
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
    # Items that it let go of because it broke off: its successor may have them back (spec 17).
    released_items: list[str] = field(default_factory=list)
    lost_items: list[Json] = field(default_factory=list)

    # Queries

    @property
    def is_known(self) -> bool:
        """Whether it was opened, and not deleted since."""
        return self.version > 0 and not self.is_deleted

    @property
    def is_live(self) -> bool:
        """Active, paused or stalled: not ended."""
        return self.status in LIVE

    @property
    def machine(self) -> str | None:
        """The machine that it was opened on."""
        return self.machine_id

    @property
    def has_ended(self) -> bool:
        """Whether it has ended or lost its place, so that others may take what it holds."""
        return not self.is_live or self.is_deleted or self.superseded_by is not None

    def threshold_seconds(self, default_ms: int) -> float:
        """This session's own stall threshold, or the service's (S4 2.4)."""
        return (self.stall_threshold_ms or default_ms) / 1000

    def is_overdue(self, at: datetime, default_ms: int, serving: Serving = ALWAYS) -> bool:
        """Active, and silent for longer than the threshold: stalled, recorded or not."""
        if self.status != "active":
            return False
        return self.silent_seconds(at, serving) > self.threshold_seconds(default_ms)

    def status_at(self, at: datetime, default_ms: int, serving: Serving = ALWAYS) -> SessionStatus:
        """The status that every reader sees: past the threshold it is ``stalled`` (spec 17)."""
        return "stalled" if self.is_overdue(at, default_ms, serving) else self.status

    def is_silent(self, at: datetime, default_ms: int, serving: Serving = ALWAYS) -> bool:
        """Whether nothing is heard of it for longer than the threshold, paused or not."""
        if self.status == "paused":
            return self.silent_seconds(at, serving) > self.threshold_seconds(default_ms)
        return self.status_at(at, default_ms, serving) == "stalled"

    # Preconditions

    def require_known(self) -> None:
        """Raise :class:`SessionNotFound` for one that never was, or was deleted."""
        if not self.is_known:
            raise SessionNotFound.named(self.key)

    def require_writable(self) -> None:
        """Raise unless the session may still write: known, not ended, in its place."""
        self.require_known()
        if self.recovered_to:
            raise SessionEnded(
                "The session was recovered; its successor carries the work on.",
                details={"status": self.status, "recovered_to": self.recovered_to},
            )
        if self.outcome == "superseded":
            raise Superseded(details={"superseded_by": self.superseded_by})
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
            raise TaskNotFound.named(task_id)
        return self.tasks[task_id]

    # Life

    def open(self, at: datetime, project_id: str, machine_id: str, **rest: object) -> None:
        """The session's first event. ``rest`` are the optional fields of SessionCreated."""
        self.record(SessionCreated, at, project_id=project_id, machine_id=machine_id, **rest)

    def beat(
        self, at: datetime, current_task_id: str | None = None, metadata: Json | None = None
    ) -> None:
        """Record a heartbeat; it revives a stalled session and leaves a paused one paused."""
        self.require_writable()
        require_room(self.metadata, metadata)
        if self.status == "stalled":
            self.record(SessionActivated, at)
        self.record(
            SessionHeartbeat, at, current_task_id=current_task_id, metadata=metadata or None
        )

    def take_up(
        self,
        at: datetime,
        default_ms: int,
        supervisor: str,
        serving: Serving = ALWAYS,
        *,
        seen: int | None = None,
        takeover: bool = False,
        hostname: str | None = None,
        instance_id: str | None = None,
        metadata: Json | None = None,
    ) -> bool:
        """Set the supervisor, which counts as a heartbeat; false if it is the supervisor already.

        Raises :class:`~domain.errors.Supervised` while the current supervisor is active, unless
        the caller asks for a takeover because it knows that the current one is gone.
        """
        self.require_writable()
        is_gone = takeover or self.is_silent(at, default_ms, serving)
        if not self.may_be_taken_up(
            supervisor, at, self.gap_seconds(at), seen=seen, is_gone=is_gone
        ):
            return False
        taken_from = self.supervisor
        self.beat(at, metadata=metadata)
        self.record(
            SessionTakenUp,
            at,
            supervisor=supervisor,
            hostname=hostname,
            instance_id=instance_id,
            taken_from=taken_from,
        )
        return True

    def put_down(self, at: datetime, fence: int) -> None:
        """Clear the supervisor; repeating it changes nothing."""
        self.require_writable()
        if self.supervisor is not None:
            self.require_supervisor(fence)
            self.record(SessionPutDown, at)

    def update(
        self, at: datetime, current_task_id: str | None = None, metadata: Json | None = None
    ) -> None:
        """Change the current task (empty: none) or merge metadata; allowed after the end too."""
        self.require_not_recovered()
        if self.is_live:
            self.require_writable()
        require_room(self.metadata, metadata)
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
        """Fail the session and every task in progress (S4 3.2.a, b)."""
        self.require_not_recovered()
        if not self.is_live:
            raise InvalidTransition(
                f"A {self.status} session cannot fail.",
                details={"from": self.status, "to": "failed"},
            )
        self.require_writable()
        require_room(self.metadata, metadata)
        self._fail(at, error_message, metadata)

    def end(self, at: datetime, reason: str) -> None:
        """End an abandoned session, which may have lost its place to another.

        It fails, with the outcome ``superseded`` if it had lost its place. Raises
        :class:`SessionEnded` if it has ended already.
        """
        if not self.is_live:
            self.require_writable()
        self.require_known()
        self._fail(at, reason)

    def end_passed_on(self, at: datetime, stale_seconds: float, serving: Serving = ALWAYS) -> bool:
        """End it if another has its place and nothing was heard of it for so long (spec 7)."""
        if not self.is_known or not self.is_live or self.superseded_by is None:
            return False
        if self.silent_seconds(at, serving) <= stale_seconds:
            return False
        self._fail(at, f"Session {self.superseded_by} took its place while it was silent.")
        return True

    def _fail(self, at: datetime, error_message: str, metadata: Json | None = None) -> None:
        for task in self.tasks_in("in_progress"):
            self.record(
                TaskFailed,
                at,
                task_id=task.task_id,
                error_message=f"The session failed: {error_message}",
            )
        self.record(
            SessionFailed,
            at,
            error_message=error_message,
            metadata=metadata or None,
            superseded=self.superseded_by is not None or None,
        )

    def mark_stalled(self, at: datetime) -> None:
        """Mark the session as stalled (S4 3.2.d); repeating it changes nothing."""
        self.require_not_recovered()
        if not self.is_live:
            raise InvalidTransition(
                f"A {self.status} session cannot stall.",
                details={"from": self.status, "to": "stalled"},
            )
        self.require_writable()
        if self.status != "stalled":
            self.record(SessionStalled, at, reason="marked", age_ms=self._gap_ms(at))

    def note_overdue(self, at: datetime, default_ms: int, serving: Serving = ALWAYS) -> bool:
        """Record a stall if the session is overdue now; a heartbeat that came first prevents it."""
        if not self.is_known or not self.is_overdue(at, default_ms, serving):
            return False
        self.record(SessionStalled, at, reason="no_heartbeat", age_ms=self._gap_ms(at))
        return True

    def archive(self, at: datetime) -> None:
        """Archive an ended session (S4 3.4.c); repeating it changes nothing."""
        self.require_known()
        if self.is_live:
            raise NotArchivable(details={"status": self.status})
        if self.archived_at is None:
            self.record(SessionArchived, at)

    def delete(self, at: datetime) -> None:
        """Delete the session: record its tombstone (spec 8)."""
        self.require_known()
        self.record(SessionDeleted, at, task_ids=list(self.tasks))

    # Recovery

    def prepare_recovery(
        self, at: datetime, clear_machine: bool, default_ms: int, serving: Serving = ALWAYS
    ) -> None:
        """Record that a recovery of the session is being prepared (S4 3.3.b, f)."""
        self.require_recoverable(at, default_ms, serving)
        self.record(SessionRecoveryPrepared, at, machine_cleared=clear_machine)

    def require_recoverable(self, at: datetime, default_ms: int, serving: Serving = ALWAYS) -> None:
        """Raise :class:`NotRecoverable` unless failed or stalled."""
        self.require_known()
        status = self.status_at(at, default_ms, serving)
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

    def recover(
        self, at: datetime, successor: str, machine_id: str, lost_items: Sequence[Json] = ()
    ) -> None:
        """End in favour of the successor."""
        self.record(
            SessionRecovered,
            at,
            recovered_to=successor,
            onto_machine_id=machine_id,
            lost_items=list(lost_items) or None,
        )

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
        self._require_room_for_task(metadata)
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
        """Change a task's status or metadata (S4 3.1); an unchanged status only merges metadata."""
        task = self.require_task(task_id)
        self.require_writable()
        require_room(task.metadata, metadata)
        self._require_room_for_all(metadata, error_message)
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
        """Delete a task: record its tombstone."""
        self.require_task(task_id)
        self.require_writable()
        self.record(TaskDeleted, at, task_id=task_id)

    def tasks_in(self, *statuses: TaskStatus) -> Sequence[Task]:
        """The tasks in any of these statuses, oldest first."""
        return [task for task in self.tasks.values() if task.status in statuses]

    # For the events

    def touched(self, event: Event) -> None:
        """Everything that happens to the session refreshes ``updated_at``."""
        self.updated_at = event.timestamp

    def displaced(self, resource: str, taken_by: str) -> None:
        """Losing one's place is being superseded, unless by one's own successor."""
        if not is_work_item(resource) and not self.recovered_to:
            self.superseded_by = taken_by

    def gave_up(self, resource: str) -> None:
        """What a session that broke off lets go of is remembered for its successor."""
        broke_off = self.status == "failed" or self.superseded_by is not None
        if broke_off and is_work_item(resource):
            self.released_items = [*self.released_items, resource]

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

    def _require_room_for_task(self, metadata: Json | None) -> None:
        if len(self.tasks) >= MAX_TASKS:
            raise InvalidInput.of("session_id", f"the session has {MAX_TASKS} tasks already")
        self._require_room_for_all(metadata, None)

    def _require_room_for_all(self, metadata: Json | None, error_message: str | None) -> None:
        """Raise :class:`InvalidInput` when the session's tasks say too much together.

        They are recovered, and told to whoever recovers them, in one go.
        """
        added = stored_size((metadata, error_message))
        if added <= SMALL_BYTES:
            return
        said = [(task.metadata, task.error_message) for task in self.tasks.values()]
        if added + stored_size(said) > MAX_TASKS_BYTES:
            field = "metadata" if metadata else "error_message"
            raise InvalidInput.of(
                field, f"the session's tasks would have more than {MAX_TASKS_BYTES} bytes in all"
            )

    def _gap_ms(self, at: datetime) -> int:
        return int(self.gap_seconds(at) * 1000)
