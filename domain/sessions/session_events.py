"""What happens to a session and its tasks (S4 2, 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from domain.aggregate import Event, Json, iso, merged
from domain.sessions.task import Task, TaskStatus

if TYPE_CHECKING:
    from domain.sessions.session import Session


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
    # Whoever opens it to supervise a process in it.
    supervisor: str | None = None

    def change(self, session: Session) -> None:
        session.project_id, session.machine_id = self.project_id, self.machine_id
        session.docker_slot = self.docker_slot
        session.metadata = merged({}, self.metadata)
        session.instance_id, session.hostname = self.instance_id, self.hostname
        session.tty, session.codebase = self.tty, self.codebase
        session.stall_threshold_ms = self.stall_threshold_ms
        session.recovered_from = self.recovered_from
        session.created_at = session.started_at = session.last_heartbeat = self.timestamp
        if self.supervisor is not None:
            session.supervised_by(
                self.supervisor, self.hostname, self.originator_version, self.timestamp
            )


class SessionHeartbeat(SessionEvent):
    """The session is alive (S4 2.2)."""

    event_type = "session_heartbeat"
    compact = True
    current_task_id: str | None = None
    metadata: Json | None = None

    def change(self, session: Session) -> None:
        session.last_heartbeat = self.timestamp
        session.lost_claims = []
        if self.current_task_id is not None:
            session.current_task_id = self.current_task_id
        session.metadata = merged(session.metadata, self.metadata)


class SessionTakenUp(SessionEvent):
    """A supervisor takes up the session; the event's number is its fence (spec 17).

    It comes with a heartbeat. ``instance_id`` is the process that works in it from here on.
    """

    event_type = "session_taken_up"
    supervisor: str
    hostname: str | None = None
    instance_id: str | None = None
    taken_from: str | None = None

    def change(self, session: Session) -> None:
        session.supervised_by(
            self.supervisor, self.hostname, self.originator_version, self.timestamp
        )
        session.instance_before = session.instance_id
        session.instance_id = self.instance_id or session.instance_id


class SessionPutDown(SessionEvent):
    """The supervisor stopped supervising without having worked in the session."""

    event_type = "session_put_down"

    def change(self, session: Session) -> None:
        session.given_up()
        session.instance_id = session.instance_before


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
    """The session was paused; a paused session never stalls."""

    event_type = "session_paused"

    def change(self, session: Session) -> None:
        session.status = "paused"


class SessionActivated(SessionEvent):
    """A paused or stalled session is active again; this counts as a heartbeat."""

    event_type = "session_activated"

    def change(self, session: Session) -> None:
        session.status = "active"
        session.last_heartbeat = self.timestamp


class SessionStalled(SessionEvent):
    """No heartbeat for longer than the threshold, or marked as stalled; a heartbeat revives it."""

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
    # Its place had passed to another, and it was never heard of again.
    superseded: bool | None = None

    def change(self, session: Session) -> None:
        session.status = "failed"
        session.outcome = "superseded" if self.superseded else "failed"
        session.completed_at = self.timestamp
        session.metadata = merged(
            session.metadata, {**(self.metadata or {}), "error_message": self.error_message}
        )


class SessionRecoveryPrepared(SessionEvent):
    """A recovery of the session is being prepared (S4 3.3)."""

    event_type = "session_recovery_prepared"
    machine_cleared: bool = False

    def change(self, session: Session) -> None:
        session.metadata = {
            **session.metadata,
            "recovery_prepared_at": iso(self.timestamp),
        }
        if self.machine_cleared:
            session.machine_id = None


class SessionRecovered(SessionEvent):
    """A successor carries the work on; this session is over (S4 3.3.d)."""

    event_type = "session_recovered"
    recovered_to: str
    onto_machine_id: str
    # Items that the session had released and that the successor could not have back.
    lost_items: list[Json] | None = None

    def change(self, session: Session) -> None:
        session.lost_items = list(self.lost_items or ())
        session.status, session.outcome = "completed", "recovered"
        session.recovered_to, session.recovered_onto = self.recovered_to, self.onto_machine_id
        session.completed_at = session.completed_at or self.timestamp
        session.metadata = {
            **session.metadata,
            "recovery": {"outcome": "recovered", "recovered_to": self.recovered_to},
        }


class SessionArchived(SessionEvent):
    """The session was archived: clean-up does not delete it (S4 3.4)."""

    event_type = "session_archived"

    def change(self, session: Session) -> None:
        session.archived_at = self.timestamp
        session.metadata = {
            **session.metadata,
            "archived": True,
            "archived_at": iso(self.timestamp),
        }


class SessionDeleted(SessionEvent):
    """The session and its tasks were deleted (a tombstone); their events are kept (spec 8)."""

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
    """The task was deleted (a tombstone); its events are kept."""

    event_type = "task_deleted"

    def change(self, session: Session) -> None:
        del session.tasks[self.task_id]
        session.clear_current_task(self.task_id)


EVENTS: tuple[type[SessionEvent], ...] = (
    SessionCreated,
    SessionHeartbeat,
    SessionTakenUp,
    SessionPutDown,
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
