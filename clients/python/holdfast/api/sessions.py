"""Sessions, their tasks, and machines (S4 2, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from holdfast.api.area import UNSET, Area, Unset, part, said
from holdfast.types import (
    Json,
    Machine,
    MachinePage,
    MachineStatus,
    RecoveredSession,
    Session,
    SessionBeat,
    SessionPage,
    SessionStatus,
    TakenUpSession,
    Task,
    TaskPage,
    TaskStatus,
)


class Sessions(Area):
    """``/api/sessions``"""

    def create(
        self,
        project_id: str,
        machine_id: str,
        *,
        docker_slot: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        instance_id: str | None = None,
        hostname: str | None = None,
        tty: str | None = None,
        codebase: str | None = None,
        stall_threshold_ms: int | None = None,
        replace: bool = False,
        any_slot: bool = False,
        supervisor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Open a session. ``Conflict`` ``session_exists`` if its place is taken.

        With ``any_slot`` it then takes the machine's next free docker slot instead.

        ``supervisor`` is a unique name of the process that supervises the session. That process
        sends the ``supervisor_fence`` of the reply with every later request for the session.
        """
        body = said(
            project_id=project_id,
            machine_id=machine_id,
            docker_slot=docker_slot,
            metadata=metadata,
            instance_id=instance_id,
            hostname=hostname,
            tty=tty,
            codebase=codebase,
            stall_threshold_ms=stall_threshold_ms,
            replace=replace or None,
            any_slot=any_slot or None,
            supervisor=supervisor,
        )
        reply = self._write(
            "POST", "/api/sessions", body, creates="session", idempotency_key=idempotency_key
        )
        return cast(Session, reply)

    def get(self, session_id: str) -> Session:
        """One session."""
        return cast(Session, self._get(_session(session_id)))

    def list(
        self,
        *,
        project_id: str | None = None,
        machine_id: str | None = None,
        status: SessionStatus | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """Sessions, newest first; at most 100 at once."""
        page = self._get(
            "/api/sessions",
            project_id=project_id,
            machine_id=machine_id,
            status=status,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(SessionPage, page)

    def active(
        self, *, limit: int | None = None, offset: int | None = None, cursor: str | None = None
    ) -> Json:
        """Every live session with the age of its last heartbeat and what it holds (S3)."""
        return cast(
            Json, self._get("/api/sessions/active", limit=limit, offset=offset, cursor=cursor)
        )

    def archived(
        self, *, limit: int | None = None, offset: int | None = None, cursor: str | None = None
    ) -> SessionPage:
        """Archived sessions."""
        return cast(
            SessionPage,
            self._get("/api/sessions/archived", limit=limit, offset=offset, cursor=cursor),
        )

    def stalled(self) -> Json:
        """Every stalled session, the longest silent first."""
        return cast(Json, self._get("/api/sessions/stalled"))

    def counts(self) -> Json:
        """How many sessions there are of each status."""
        return cast(Json, self._get("/api/sessions/health"))

    def health(self, session_id: str) -> Json:
        """Whether one session is alive."""
        return cast(Json, self._get(f"{_session(session_id)}/health"))

    def update(
        self,
        session_id: str,
        *,
        status: SessionStatus | None = None,
        current_task_id: str | Unset | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Change its status, current task (``None`` clears it) or metadata (which is merged)."""
        told = said(status=status, metadata=metadata, supervisor_fence=supervisor_fence)
        body = {**told, "current_task_id": current_task_id}
        reply = self._write("PATCH", _session(session_id), body, idempotency_key=idempotency_key)
        return cast(Session, reply)

    def complete(self, session_id: str, *, metadata: Mapping[str, Any] | None = None) -> Session:
        """Complete the session. All that it holds becomes free."""
        return self.update(session_id, status="completed", metadata=metadata)

    def beat(
        self,
        session_id: str,
        *,
        current_task_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
    ) -> SessionBeat:
        """Record a heartbeat. ``Conflict`` ``session_ended`` or ``superseded`` if it is over."""
        path = f"{_session(session_id)}/heartbeat"
        body = said(
            current_task_id=current_task_id, metadata=metadata, supervisor_fence=supervisor_fence
        )
        return cast(SessionBeat, self._write("POST", path, body, replaces=f"beat {session_id}"))

    def take_up(
        self,
        session_id: str,
        supervisor: str,
        *,
        seen_fence: int | None = None,
        takeover: bool = False,
        hostname: str | None = None,
        instance_id: str | None = None,
        seen_instance_fence: int | None = None,
        takeover_instance: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> TakenUpSession:
        """Become the session's supervisor. The reply has the ``supervisor_fence`` to send.

        ``seen_fence`` is the fence that was read before, 0 for none. ``Conflict`` ``supervised`` if
        it has changed since, or if the present supervisor is not silent yet. ``takeover`` says that
        the present supervisor is gone although its last heartbeat is recent.

        With ``seen_instance_fence`` the instance is taken up too: both or neither. The reply then
        has the ``instance_supervisor_fence`` as well.
        """
        body = said(
            supervisor=supervisor,
            seen_fence=seen_fence,
            takeover=takeover or None,
            hostname=hostname,
            instance_id=instance_id,
            seen_instance_fence=seen_instance_fence,
            takeover_instance=takeover_instance or None,
            metadata=metadata,
        )
        path = f"{_session(session_id)}/take-up"
        return cast(TakenUpSession, self._write("POST", path, body, deferrable=False))

    def put_down(self, session_id: str, supervisor_fence: int) -> Session:
        """Stop supervising the session, if no process was started for it."""
        path = f"{_session(session_id)}/put-down"
        return cast(Session, self._write("POST", path, {"supervisor_fence": supervisor_fence}))

    def mark_failed(
        self,
        session_id: str,
        error_message: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Mark it failed. Its tasks in progress fail too, and all that it holds becomes free."""
        reply = self._write(
            "POST",
            f"{_session(session_id)}/mark-failed",
            said(error_message=error_message, metadata=metadata, supervisor_fence=supervisor_fence),
            idempotency_key=idempotency_key,
        )
        return cast(Session, reply)

    def end(self, session_id: str, *, reason: str | None = None) -> Session:
        """Mark a session failed in which nobody works any more, even if another has its place."""
        path = f"{_session(session_id)}/end"
        return cast(Session, self._write("POST", path, said(reason=reason)))

    def mark_stalled(self, session_id: str) -> Session:
        """Mark the session stalled."""
        return cast(Session, self._write("POST", f"{_session(session_id)}/mark-stalled"))

    def archive(self, session_id: str) -> Session:
        """Archive an ended session: cleanup does not delete it."""
        return cast(Session, self._write("POST", f"{_session(session_id)}/archive"))

    def delete(self, session_id: str) -> None:
        """Delete the session. Its events remain."""
        self._write("DELETE", _session(session_id))

    def recovery_state(self, session_id: str) -> Json:
        """What is needed to recover the session."""
        return cast(Json, self._get(f"{_session(session_id)}/recovery-state"))

    def prepare_recovery(self, session_id: str, *, clear_machine: bool = False) -> Session:
        """Record that the session will be recovered."""
        path = f"{_session(session_id)}/prepare-recovery"
        body = said(clear_machine=clear_machine or None)
        return cast(Session, self._write("POST", path, body, deferrable=False))

    def recover(
        self,
        session_id: str,
        new_machine_id: str,
        *,
        docker_slot: int | None = None,
        any_slot: bool = False,
        reset_failed_tasks: bool = True,
    ) -> RecoveredSession:
        """Open a successor on this machine that continues the work; repeated, it returns the same.

        With ``any_slot`` it takes its own slot if that is free on this machine, else a free one.
        """
        body = said(
            new_machine_id=new_machine_id,
            docker_slot=docker_slot,
            any_slot=any_slot or None,
            reset_failed_tasks=reset_failed_tasks,
        )
        path = f"{_session(session_id)}/recover"
        return cast(RecoveredSession, self._write("POST", path, body, deferrable=False))

    def detect_failures(self) -> Json:
        """Detect and record stalled sessions now."""
        return cast(Json, self._write("POST", "/api/sessions/detect-failures", deferrable=False))

    def clean_up(self, *, older_than_days: int | None = None) -> Json:
        """Delete sessions that ended long ago and are not archived."""
        reply = self._write(
            "POST",
            "/api/sessions/cleanup",
            params=said(older_than_days=older_than_days),
            deferrable=False,
        )
        return cast(Json, reply)


class Tasks(Area):
    """``/api/tasks``"""

    def create(
        self,
        session_id: str,
        project_id: str,
        task_name: str,
        *,
        github_issue_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Add a pending task to a session."""
        body = said(
            session_id=session_id,
            project_id=project_id,
            task_name=task_name,
            github_issue_id=github_issue_id,
            metadata=metadata,
            supervisor_fence=supervisor_fence,
        )
        reply = self._write(
            "POST", "/api/tasks", body, creates="task", idempotency_key=idempotency_key
        )
        return cast(Task, reply)

    def get(self, task_id: str) -> Task:
        """One task."""
        return cast(Task, self._get(_task(task_id)))

    def list(
        self,
        *,
        session_id: str | None = None,
        project_id: str | None = None,
        status: TaskStatus | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> TaskPage:
        """Tasks, oldest first; at most 200 at once."""
        page = self._get(
            "/api/tasks",
            session_id=session_id,
            project_id=project_id,
            status=status,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(TaskPage, page)

    def update(
        self,
        task_id: str,
        *,
        status: TaskStatus | None = None,
        error_message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
    ) -> Task:
        """Change its status or metadata."""
        body = said(
            status=status,
            error_message=error_message,
            metadata=metadata,
            supervisor_fence=supervisor_fence,
        )
        return cast(Task, self._write("PATCH", _task(task_id), body))

    def start(self, task_id: str, *, supervisor_fence: int | None = None) -> Task:
        """Start the task: it becomes its session's current task."""
        return self.update(task_id, status="in_progress", supervisor_fence=supervisor_fence)

    def complete(self, task_id: str) -> Task:
        """Complete the task."""
        return self.update(task_id, status="completed")

    def fail(self, task_id: str, error_message: str) -> Task:
        """Mark the task failed."""
        return self.update(task_id, status="failed", error_message=error_message)

    def delete(self, task_id: str) -> None:
        """Delete the task. Its events remain."""
        self._write("DELETE", _task(task_id))


class Machines(Area):
    """``/api/machines``"""

    def register(
        self,
        hostname: str,
        docker_slots: Sequence[int] = (),
        *,
        machine_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Machine:
        """Register a machine, or update one that is registered."""
        body = said(
            hostname=hostname,
            docker_slots=[*docker_slots],
            machine_id=machine_id,
            metadata=metadata,
        )
        return cast(Machine, self._write("POST", "/api/machines", body))

    def get(self, machine_id: str) -> Machine:
        """One machine with its active sessions."""
        return cast(Machine, self._get(_machine(machine_id)))

    def list(
        self,
        *,
        status: MachineStatus | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> MachinePage:
        """Machines, oldest first."""
        page = self._get("/api/machines", status=status, limit=limit, offset=offset, cursor=cursor)
        return cast(MachinePage, page)

    def update(
        self,
        machine_id: str,
        *,
        status: MachineStatus | None = None,
        docker_slots: Sequence[int] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Machine:
        """Change its status, slots or metadata."""
        slots = None if docker_slots is None else [*docker_slots]
        body = said(status=status, docker_slots=slots, metadata=metadata)
        return cast(Machine, self._write("PATCH", _machine(machine_id), body))

    def remove(self, machine_id: str) -> None:
        """Remove the machine. ``Conflict`` ``machine_in_use`` while it has open sessions."""
        self._write("DELETE", _machine(machine_id))

    def beat(self, machine_id: str, *, metadata: Mapping[str, Any] | None = None) -> Machine:
        """Record a heartbeat of the machine."""
        path, body = f"{_machine(machine_id)}/heartbeat", said(metadata=metadata)
        return cast(Machine, self._write("POST", path, body, replaces=f"machine {machine_id}"))


def _session(session_id: str) -> str:
    return f"/api/sessions/{part(session_id)}"


def _task(task_id: str) -> str:
    return f"/api/tasks/{part(task_id)}"


def _machine(machine_id: str) -> str:
    return f"/api/machines/{part(machine_id)}"
