"""The commands on tasks, which are part of their session's stream (S4 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from application.engine.fields import BySupervisor, Dated, Found, Id, Metadata, Name, Text
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.session_view import task_view
from application.workers import named_session
from domain import identity
from domain.errors import InvalidInput, TaskNotFound
from domain.sessions.session import Session
from domain.sessions.task import TaskStatus


class CreateTask(BySupervisor, Dated):
    """Add a pending task to a session."""

    session_id: Id
    project_id: Id
    task_name: Name
    github_issue_id: Id | None = None
    metadata: Metadata | None = None


class UpdateTask(BySupervisor, Dated):
    """Change a task's status or metadata."""

    task_id: str
    status: TaskStatus | None = None
    error_message: Text | None = None
    metadata: Metadata | None = None
    session_id: Found[str | None] = None


class DeleteTask(BySupervisor):
    """Delete a task; its events are kept."""

    task_id: str
    session_id: Found[str | None] = None


def create(work: UnitOfWork, command: CreateTask) -> Reply:
    """201 with the task. An unknown session is 400: it is a field of the body (S4 3.1.b)."""
    session = named_session(work, command.session_id)
    session.require_writable()
    session.require_supervisor(command.supervisor_fence)
    if identity.slug(command.project_id) != identity.slug(session.project_id):
        raise InvalidInput.of("project_id", "the session belongs to another project")
    task_id = str(uuid4())
    session.add_task(
        work.now, task_id, command.task_name, command.github_issue_id, command.metadata
    )
    return Reply(task_view(session, session.tasks[task_id]), 201)


def update(work: UnitOfWork, command: UpdateTask) -> Reply:
    """The changed task. Status ``failed`` needs a reason (S4 3.1.g)."""
    session = _session_of(work, command)
    session.require_task(command.task_id)
    if command.status == "failed" and command.error_message is None:
        raise InvalidInput.of("error_message", "a failed task needs one")
    if command.error_message is not None and command.status not in ("failed", "blocked"):
        raise InvalidInput.of("error_message", "goes with status failed or blocked")
    session.update_task(
        work.now, command.task_id, command.status, command.error_message, command.metadata
    )
    return Reply(task_view(session, session.tasks[command.task_id]))


def delete(work: UnitOfWork, command: DeleteTask) -> Reply:
    """204."""
    session = _session_of(work, command)
    session.delete_task(work.now, command.task_id)
    return Reply({}, 204)


def _session_of(work: UnitOfWork, command: UpdateTask | DeleteTask) -> Session:
    if command.session_id is None:
        raise TaskNotFound.named(command.task_id)
    session = work.load(Session, command.session_id)
    if not session.has_ended:
        # For an ended session, "it has ended" tells more than "stale fence".
        session.require_supervisor(command.supervisor_fence)
    return session


HANDLERS: Mapping[type, Handler] = {
    CreateTask: create,
    UpdateTask: update,
    DeleteTask: delete,
}
