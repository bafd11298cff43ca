"""The table of everything that can be asked of the service.

HTTP routes, the OpenAPI document and (through the same commands) every other face are made from
it. A command is a model of ``application`` with a handler there; a query is a function of
``projections``; an action is a background job that can also be asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from application import machines as machine_commands
from application import sessions as session_commands
from application import tasks as task_commands
from application.engine import Context, Outcome
from application.fields import Command
from domain.aggregate import Json
from domain.machine import MachineStatus
from domain.session import SessionStatus
from domain.task import TaskStatus
from projections import machines, recovery, sessions, tasks
from projections.reads import Page, Reads

Scope = Literal["read", "write", "admin"]
Bucket = Literal["api", "ingest"]

SESSIONS_MAX = 100  # spec 9
LIST_MAX = 200  # spec 9


class Params(BaseModel):
    """What a query takes from the path and the query string. Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_position: Annotated[int, Field(ge=0)] | None = None


class Listing(Params):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=LIST_MAX)] = 50
    offset: Annotated[int, Field(ge=0, le=2**31)] = 0

    @property
    def page(self) -> Page:
        """The page that is asked for."""
        return Page(self.limit, self.offset)


class SessionPage(Listing):
    """A page of sessions."""

    limit: Annotated[int, Field(ge=1, le=SESSIONS_MAX)] = 50


class SessionList(SessionPage):
    """Which sessions to list."""

    project_id: str | None = None
    machine_id: str | None = None
    status: SessionStatus | None = None


class TaskList(Listing):
    """Which tasks to list."""

    session_id: str | None = None
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

    machine_id: str


class CleanUp(BaseModel):
    """How old an ended session must be; the service's own setting if not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    older_than_days: Annotated[int, Field(ge=0, le=36_500)] | None = None


class Nothing(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sweeps(Protocol):
    """The background jobs as operations ask for them."""

    async def detect_failures(self, context: Context) -> ActionResult:
        """Record every stall of a namespace now."""

    async def clean_up(self, context: Context, older_than: timedelta | None) -> ActionResult:
        """Delete what ended long ago."""


class ActionResult(NamedTuple):
    """What an action did, and the position of its last event (the head if it wrote nothing)."""

    value: Json
    position: int


class Services(Protocol):
    """What operations are carried out with."""

    @property
    def reads(self) -> Reads: ...
    @property
    def sweeps(self) -> Sweeps: ...
    @property
    def stall_threshold_ms(self) -> int: ...
    async def submit(self, command: object, context: Context) -> Outcome:
        """Carry out a command."""


Prepare = Callable[[Services, str, Any], Awaitable[Mapping[str, object]]]
Query = Callable[[Services, str, Any], Awaitable[Json]]
Action = Callable[[Services, Context, Any], Awaitable[ActionResult]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row of the table. Exactly one of ``command``, ``query`` and ``action`` is set.

    ``name`` is also what events keep as their command. ``prepare`` fills in a command's fields of
    kind ``Found`` from the read models.
    """

    name: str
    verb: Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
    path: str
    summary: str
    model: type[BaseModel]
    command: bool = False
    prepare: Prepare | None = None
    query: Query | None = None
    action: Action | None = None
    status: int = 200
    scope: Scope = "write"
    bucket: Bucket = "api"


def _command(
    name: str,
    verb: Literal["POST", "PATCH", "PUT", "DELETE"],
    path: str,
    model: type[Command],
    status: int = 200,
    prepare: Prepare | None = None,
    bucket: Bucket = "api",
) -> Operation:
    return Operation(
        name=name,
        verb=verb,
        path=path,
        summary=_first_line(model),
        model=model,
        command=True,
        prepare=prepare,
        status=status,
        bucket=bucket,
    )


def _query(name: str, path: str, model: type[Params], query: Query) -> Operation:
    return Operation(
        name=name,
        verb="GET",
        path=path,
        summary=_first_line(query),
        model=model,
        query=query,
        scope="read",
    )


def _action(
    name: str, verb: Literal["POST", "DELETE"], path: str, model: type[BaseModel], action: Action
) -> Operation:
    return Operation(
        name=name,
        verb=verb,
        path=path,
        summary=_first_line(action),
        model=model,
        action=action,
        scope="admin",
    )


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


# Queries


async def _list_sessions(s: Services, namespace: str, p: SessionList) -> Json:
    """Sessions, newest first."""
    return await sessions.listed(
        s.reads,
        namespace,
        p.page,
        project_id=p.project_id,
        machine_id=p.machine_id,
        status=p.status,
    )


async def _archived_sessions(s: Services, namespace: str, p: SessionPage) -> Json:
    """Archived sessions, newest first."""
    return await sessions.listed(s.reads, namespace, p.page, archived=True)


async def _active_sessions(s: Services, namespace: str, p: SessionPage) -> Json:
    """Every live session with its heartbeat's age and what it holds."""
    return await sessions.active(s.reads, namespace, p.page)


async def _sessions_health(s: Services, namespace: str, p: Params) -> Json:
    """How many sessions there are of each status."""
    return await sessions.health(s.reads, namespace)


async def _stalled_sessions(s: Services, namespace: str, p: Params) -> Json:
    """Every stalled session, the longest silent first."""
    return {
        "stalled_sessions": await sessions.stalled(s.reads, namespace),
        "stall_threshold_ms": s.stall_threshold_ms,
    }


async def _session(s: Services, namespace: str, p: OneSession) -> Json:
    """One session."""
    return await sessions.get(s.reads, namespace, p.session_id)


async def _session_health(s: Services, namespace: str, p: OneSession) -> Json:
    """Whether one session is alive."""
    return await sessions.health_of(s.reads, namespace, p.session_id)


async def _recovery_state(s: Services, namespace: str, p: OneSession) -> Json:
    """What it takes to carry on from a session."""
    return await recovery.state(s.reads, namespace, p.session_id)


async def _list_tasks(s: Services, namespace: str, p: TaskList) -> Json:
    """Tasks, oldest first."""
    return await tasks.listed(
        s.reads,
        namespace,
        p.page,
        session_id=p.session_id,
        project_id=p.project_id,
        status=p.status,
    )


async def _task(s: Services, namespace: str, p: OneTask) -> Json:
    """One task."""
    return await tasks.get(s.reads, namespace, p.task_id)


async def _list_machines(s: Services, namespace: str, p: MachineList) -> Json:
    """Machines, oldest first."""
    return await machines.listed(s.reads, namespace, p.page, status=p.status)


async def _machine(s: Services, namespace: str, p: OneMachine) -> Json:
    """One machine with its active sessions."""
    return await machines.get(s.reads, namespace, p.machine_id)


# What commands need to find


async def _session_of_task(s: Services, namespace: str, command: Any) -> Mapping[str, object]:
    return {"session_id": await tasks.session_of(s.reads, namespace, command.task_id)}


async def _sessions_on_machine(s: Services, namespace: str, command: Any) -> Mapping[str, object]:
    if command.machine_id is None:
        return {}
    found = await machines.active_sessions(s.reads, namespace, command.machine_id)
    return {"active_sessions": found}


# Actions


async def _detect_failures(s: Services, context: Context, p: Nothing) -> ActionResult:
    """Record every stall now."""
    return await s.sweeps.detect_failures(context)


async def _clean_up(s: Services, context: Context, p: CleanUp) -> ActionResult:
    """Delete sessions that ended long ago and are not archived."""
    days = p.older_than_days
    return await s.sweeps.clean_up(context, None if days is None else timedelta(days=days))


_SESSION = "/api/sessions/{session_id}"
_TASK = "/api/tasks/{task_id}"
_MACHINE = "/api/machines/{machine_id:path}"

# In the order in which paths are matched: the busiest first, a fixed path before a variable one.
OPERATIONS: tuple[Operation, ...] = (
    _command(
        "session_heartbeat",
        "POST",
        f"{_SESSION}/heartbeat",
        session_commands.BeatSession,
        bucket="ingest",
    ),
    _command("session_create", "POST", "/api/sessions", session_commands.CreateSession, 201),
    _query("session_list", "/api/sessions", SessionList, _list_sessions),
    _query("session_active", "/api/sessions/active", SessionPage, _active_sessions),
    _query("session_health_summary", "/api/sessions/health", Params, _sessions_health),
    _query("session_stalled", "/api/sessions/stalled", Params, _stalled_sessions),
    _query("session_archived", "/api/sessions/archived", SessionPage, _archived_sessions),
    _action("detect_failures", "POST", "/api/sessions/detect-failures", Nothing, _detect_failures),
    _action("session_cleanup", "POST", "/api/sessions/cleanup", CleanUp, _clean_up),
    _action("session_cleanup_alias", "DELETE", "/api/sessions/cleanup", CleanUp, _clean_up),
    _query("session_get", _SESSION, OneSession, _session),
    _command("session_update", "PATCH", _SESSION, session_commands.UpdateSession),
    _command("session_delete", "DELETE", _SESSION, session_commands.DeleteSession, 204),
    _query("session_health", f"{_SESSION}/health", OneSession, _session_health),
    _query("session_recovery_state", f"{_SESSION}/recovery-state", OneSession, _recovery_state),
    _command("session_mark_failed", "POST", f"{_SESSION}/mark-failed", session_commands.MarkFailed),
    _command(
        "session_mark_stalled", "POST", f"{_SESSION}/mark-stalled", session_commands.MarkStalled
    ),
    _command("session_archive", "POST", f"{_SESSION}/archive", session_commands.ArchiveSession),
    _command(
        "session_prepare_recovery",
        "POST",
        f"{_SESSION}/prepare-recovery",
        session_commands.PrepareRecovery,
    ),
    _command(
        "session_recover", "POST", f"{_SESSION}/recover", session_commands.RecoverSession, 201
    ),
    _command("task_create", "POST", "/api/tasks", task_commands.CreateTask, 201),
    _query("task_list", "/api/tasks", TaskList, _list_tasks),
    _query("task_get", _TASK, OneTask, _task),
    _command("task_update", "PATCH", _TASK, task_commands.UpdateTask, prepare=_session_of_task),
    _command(
        "task_delete", "DELETE", _TASK, task_commands.DeleteTask, 204, prepare=_session_of_task
    ),
    _command(
        "machine_register",
        "POST",
        "/api/machines",
        machine_commands.RegisterMachine,
        201,
        prepare=_sessions_on_machine,
    ),
    _query("machine_list", "/api/machines", MachineList, _list_machines),
    _command(
        "machine_heartbeat",
        "POST",
        f"{_MACHINE}/heartbeat",
        machine_commands.BeatMachine,
        prepare=_sessions_on_machine,
        bucket="ingest",
    ),
    _query("machine_get", _MACHINE, OneMachine, _machine),
    _command(
        "machine_update",
        "PATCH",
        _MACHINE,
        machine_commands.UpdateMachine,
        prepare=_sessions_on_machine,
    ),
)
