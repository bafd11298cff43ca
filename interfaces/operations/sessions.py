"""The operations on sessions, tasks and machines (S4 2, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from application import machines as machine_commands
from application import sessions as session_commands
from application import supervising
from application import tasks as task_commands
from application.engine.fields import Sought
from application.engine.unit_of_work import Context
from domain.aggregate import Json
from domain.machines.machine import MachineStatus
from domain.sessions.session import SessionStatus
from domain.sessions.task import TaskStatus
from interfaces.operations.base import (
    ActionParams,
    ActionResult,
    Listing,
    Operation,
    Params,
    Services,
    action,
    command,
    query,
    unless_lagging,
)
from interfaces.replies import machines as machine_replies
from interfaces.replies import sessions as session_replies
from interfaces.replies import tasks as task_replies
from projections import machines, recovery, sessions, tasks

SESSIONS_MAX = 100  # spec 9


class SessionPage(Listing):
    """A page of sessions."""

    limit: Annotated[int, Field(ge=1, le=SESSIONS_MAX)] = 50


class SessionList(SessionPage):
    """Which sessions to list."""

    project_id: str | None = None
    machine_id: Sought | None = None
    status: SessionStatus | None = None


class TaskList(Listing):
    """Which tasks to list."""

    session_id: Sought | None = None
    project_id: str | None = None
    status: TaskStatus | None = None


class MachineList(Listing):
    """Which machines to list."""

    status: MachineStatus | None = None


class OneSession(Params):
    """The session in the path."""

    session_id: str


class OneTask(Params):
    """The task in the path."""

    task_id: str


class OneMachine(Params):
    """The machine in the path."""

    machine_id: Sought


class CleanUp(ActionParams):
    """How long ago a session must have ended; default: the setting ``RETENTION_DAYS``."""

    older_than_days: Annotated[int, Field(ge=0, le=36_500)] | None = None


# Queries


async def _list_sessions(s: Services, namespace: str, p: SessionList) -> Json:
    """List sessions, newest first."""
    return await sessions.listed(
        s.reads,
        namespace,
        p.page,
        project_id=p.project_id,
        machine_id=p.machine_id,
        status=p.status,
    )


async def _archived_sessions(s: Services, namespace: str, p: SessionPage) -> Json:
    """List archived sessions, newest first."""
    return await sessions.listed(s.reads, namespace, p.page, archived=True)


async def _active_sessions(s: Services, namespace: str, p: SessionPage) -> Json:
    """List live sessions, each with the age of its heartbeat and its claims."""
    return await sessions.active(s.reads, namespace, p.page)


async def _sessions_health(s: Services, namespace: str, p: Params) -> Json:
    """Count the sessions of each status."""
    return await sessions.health(s.reads, namespace)


async def _stalled_sessions(s: Services, namespace: str, p: Params) -> Json:
    """List stalled sessions, the longest silent first."""
    found, has_more = await sessions.stalled(s.reads, namespace)
    return {
        "stalled_sessions": found,
        "stall_threshold_ms": s.stall_threshold_ms,
        **({"has_more": True} if has_more else {}),
    }


async def _session(s: Services, namespace: str, p: OneSession) -> Json:
    """Get one session."""
    return await sessions.get(s.reads, namespace, p.session_id)


async def _session_health(s: Services, namespace: str, p: OneSession) -> Json:
    """Tell whether a session is alive, and how old its heartbeat is."""
    return await sessions.health_of(s.reads, namespace, p.session_id)


async def _recovery_state(s: Services, namespace: str, p: OneSession) -> Json:
    """Get what is needed to recover a session: its open tasks, claims and checkpoint."""
    return await recovery.state(s.reads, namespace, p.session_id)


async def _list_tasks(s: Services, namespace: str, p: TaskList) -> Json:
    """List tasks, oldest first."""
    return await tasks.listed(
        s.reads,
        namespace,
        p.page,
        session_id=p.session_id,
        project_id=p.project_id,
        status=p.status,
    )


async def _task(s: Services, namespace: str, p: OneTask) -> Json:
    """Get one task."""
    return await tasks.get(s.reads, namespace, p.task_id)


async def _list_machines(s: Services, namespace: str, p: MachineList) -> Json:
    """List machines, oldest first."""
    return await machines.listed(s.reads, namespace, p.page, status=p.status)


async def _machine(s: Services, namespace: str, p: OneMachine) -> Json:
    """Get one machine with its active sessions."""
    return await machines.get(s.reads, namespace, p.machine_id)


# What commands need from the read models


async def _session_of_task(s: Services, namespace: str, found_for: Any) -> Mapping[str, object]:
    # The task may be in events that are not projected yet; a 404 would be taken as final.
    session_id = await unless_lagging(
        tasks.session_of(s.reads, namespace, found_for.task_id), "whose task that is"
    )
    return {"session_id": session_id}


async def _sessions_on_machine(s: Services, namespace: str, found_for: Any) -> Mapping[str, object]:
    if found_for.machine_id is None:
        return {}
    found = await machines.active_sessions(s.reads, namespace, found_for.machine_id)
    return {"active_sessions": found}


# Actions


async def _detect_failures(s: Services, context: Context, p: ActionParams) -> ActionResult:
    """Record every stalled session now, without waiting for the next sweep."""
    return await s.sweeps.detect_failures(context)


async def _clean_up(s: Services, context: Context, p: CleanUp) -> ActionResult:
    """Delete sessions that ended long ago and are not archived."""
    days = p.older_than_days
    return await s.sweeps.clean_up(context, None if days is None else timedelta(days=days))


_SESSION = "/api/sessions/{session_id}"
_TASK = "/api/tasks/{task_id}"
_MACHINE = "/api/machines/{machine_id:path}"

# In the order in which paths are matched: the busiest first, a fixed path before a variable one.
ROWS: tuple[Operation, ...] = (
    command(
        "session_heartbeat",
        "POST",
        f"{_SESSION}/heartbeat",
        session_commands.BeatSession,
        bucket="ingest",
        reply=session_replies.SessionBeat,
    ),
    command(
        "session_create",
        "POST",
        "/api/sessions",
        session_commands.CreateSession,
        201,
        reply=session_replies.Session,
    ),
    query(
        "session_list",
        "/api/sessions",
        SessionList,
        _list_sessions,
        reply=session_replies.SessionPage,
    ),
    query(
        "session_active",
        "/api/sessions/active",
        SessionPage,
        _active_sessions,
        reply=session_replies.ActiveSessions,
    ),
    query(
        "session_health_summary",
        "/api/sessions/health",
        Params,
        _sessions_health,
        reply=session_replies.SessionCounts,
    ),
    query(
        "session_stalled",
        "/api/sessions/stalled",
        Params,
        _stalled_sessions,
        reply=session_replies.StalledSessions,
    ),
    query(
        "session_archived",
        "/api/sessions/archived",
        SessionPage,
        _archived_sessions,
        reply=session_replies.SessionPage,
    ),
    action(
        "detect_failures",
        "POST",
        "/api/sessions/detect-failures",
        ActionParams,
        _detect_failures,
        reply=session_replies.Detected,
    ),
    action(
        "session_cleanup",
        "POST",
        "/api/sessions/cleanup",
        CleanUp,
        _clean_up,
        reply=session_replies.CleanedUp,
    ),
    action(
        "session_cleanup_alias",
        "DELETE",
        "/api/sessions/cleanup",
        CleanUp,
        _clean_up,
        reply=session_replies.CleanedUp,
    ),
    query("session_get", _SESSION, OneSession, _session, reply=session_replies.Session),
    command(
        "session_update",
        "PATCH",
        _SESSION,
        session_commands.UpdateSession,
        reply=session_replies.Session,
    ),
    command("session_delete", "DELETE", _SESSION, session_commands.DeleteSession, 204),
    query(
        "session_health",
        f"{_SESSION}/health",
        OneSession,
        _session_health,
        reply=session_replies.SessionHealth,
    ),
    query(
        "session_recovery_state",
        f"{_SESSION}/recovery-state",
        OneSession,
        _recovery_state,
        reply=session_replies.RecoveryState,
    ),
    command(
        "session_take_up",
        "POST",
        f"{_SESSION}/take-up",
        supervising.TakeUpSession,
        reply=session_replies.TakenUpSession,
    ),
    command(
        "session_put_down",
        "POST",
        f"{_SESSION}/put-down",
        supervising.PutDownSession,
        reply=session_replies.Session,
    ),
    command(
        "session_mark_failed",
        "POST",
        f"{_SESSION}/mark-failed",
        session_commands.MarkFailed,
        reply=session_replies.Session,
    ),
    command(
        "session_end",
        "POST",
        f"{_SESSION}/end",
        session_commands.EndSession,
        reply=session_replies.Session,
    ),
    command(
        "session_mark_stalled",
        "POST",
        f"{_SESSION}/mark-stalled",
        session_commands.MarkStalled,
        reply=session_replies.Session,
    ),
    command(
        "session_archive",
        "POST",
        f"{_SESSION}/archive",
        session_commands.ArchiveSession,
        reply=session_replies.Session,
    ),
    command(
        "session_prepare_recovery",
        "POST",
        f"{_SESSION}/prepare-recovery",
        session_commands.PrepareRecovery,
        reply=session_replies.Session,
    ),
    command(
        "session_recover",
        "POST",
        f"{_SESSION}/recover",
        session_commands.RecoverSession,
        201,
        reply=session_replies.RecoveredSession,
    ),
    command(
        "task_create", "POST", "/api/tasks", task_commands.CreateTask, 201, reply=task_replies.Task
    ),
    query("task_list", "/api/tasks", TaskList, _list_tasks, reply=task_replies.TaskPage),
    query("task_get", _TASK, OneTask, _task, reply=task_replies.Task),
    command(
        "task_update",
        "PATCH",
        _TASK,
        task_commands.UpdateTask,
        prepare=_session_of_task,
        reply=task_replies.Task,
    ),
    command(
        "task_delete", "DELETE", _TASK, task_commands.DeleteTask, 204, prepare=_session_of_task
    ),
    command(
        "machine_register",
        "POST",
        "/api/machines",
        machine_commands.RegisterMachine,
        201,
        prepare=_sessions_on_machine,
        reply=machine_replies.Machine,
    ),
    query(
        "machine_list",
        "/api/machines",
        MachineList,
        _list_machines,
        reply=machine_replies.MachinePage,
    ),
    command(
        "machine_heartbeat",
        "POST",
        f"{_MACHINE}/heartbeat",
        machine_commands.BeatMachine,
        prepare=_sessions_on_machine,
        bucket="ingest",
        reply=machine_replies.Machine,
    ),
    query("machine_get", _MACHINE, OneMachine, _machine, reply=machine_replies.Machine),
    command(
        "machine_update",
        "PATCH",
        _MACHINE,
        machine_commands.UpdateMachine,
        prepare=_sessions_on_machine,
        reply=machine_replies.Machine,
    ),
    command(
        "machine_remove",
        "DELETE",
        _MACHINE,
        machine_commands.RemoveMachine,
        204,
        prepare=_sessions_on_machine,
    ),
)
