"""Sessions and tasks as clients see them."""

from __future__ import annotations

from datetime import datetime

from domain.aggregate import Json
from domain.liveness import Serving
from domain.sessions.session import Session
from domain.sessions.task import Task


def view(session: Session, now: datetime, default_ms: int, serving: Serving) -> Json:
    """A session at a given time: past its threshold it is ``stalled``, recorded or not."""
    status = session.status_at(now, default_ms, serving)
    return {
        "session_id": session.key,
        "project_id": session.project_id,
        "machine_id": session.machine_id,
        "docker_slot": session.docker_slot,
        "status": status,
        "last_heartbeat": session.last_heartbeat,
        "unknown_since": session.unheard_since(serving) if status == "active" else None,
        "current_task_id": session.current_task_id,
        "started_at": session.started_at,
        "completed_at": session.completed_at,
        "metadata": session.metadata,
        "instance_id": session.instance_id,
        "hostname": session.hostname,
        "tty": session.tty,
        "codebase": session.codebase,
        "stall_threshold_ms": session.stall_threshold_ms,
        "outcome": session.outcome,
        "recovered_from": session.recovered_from,
        "recovered_to": session.recovered_to,
        "superseded_by": session.superseded_by,
        "supervisor": session.supervisor,
        "supervisor_fence": session.supervisor_fence,
        "supervisor_hostname": session.supervisor_hostname,
        "supervised_since": session.supervised_since,
        "archived": session.archived_at is not None,
        "archived_at": session.archived_at,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    }


def task_view(session: Session, task: Task) -> Json:
    """A task, with the ids of its session and project."""
    return {
        "task_id": task.task_id,
        "session_id": session.key,
        "project_id": session.project_id,
        "github_issue_id": task.github_issue_id,
        "task_name": task.task_name,
        "status": task.status,
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "error_message": task.error_message,
        "metadata": task.metadata,
        "carried_from": task.carried_from,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
    }
