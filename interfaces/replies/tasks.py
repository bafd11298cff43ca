"""Replies about tasks (S4 3.1)."""

from __future__ import annotations

from typing_extensions import TypedDict

from domain.sessions.task import TaskStatus
from interfaces.replies.base import Json, Page, Time


class Task(TypedDict):
    """A unit of a session's progress."""

    task_id: str
    session_id: str
    project_id: str
    github_issue_id: str | None
    task_name: str
    status: TaskStatus
    started_at: Time | None
    completed_at: Time | None
    error_message: str | None
    metadata: Json
    # The task of the recovered session that it was copied from.
    carried_from: str | None
    created_at: Time
    updated_at: Time


class TaskPage(Page):
    """Tasks, oldest first."""

    tasks: list[Task]
