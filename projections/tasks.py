"""The read model of tasks (S4 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

from application.eventstore.mapper import Recorded
from domain import identity
from domain.aggregate import Json, merged
from domain.errors import TaskNotFound
from projections.kernel.paging import moment, number, text
from projections.kernel.readmodel import Find, Fold, Key, Row, Table, there
from projections.kernel.reads import Order, Page, Reads

COLUMNS = (
    "namespace",
    "task_id",
    "session_id",
    "project_id",
    "project",
    "github_issue_id",
    "task_name",
    "status",
    "started_at",
    "completed_at",
    "error_message",
    "metadata",
    "carried_from",
    "created_at",
    "updated_at",
    "sequence_num",
    "created_num",
)


# What happens to a session, and to what it holds, is not about one of its tasks.
IGNORED = frozenset(
    {
        "claim_acquired",
        "claim_cancelled",
        "claim_given_up",
        "claim_lost",
        "session_activated",
        "session_archived",
        "session_completed",
        "session_created",
        "session_failed",
        "session_heartbeat",
        "session_paused",
        "session_put_down",
        "session_recovered",
        "session_recovery_prepared",
        "session_stalled",
        "session_taken_up",
        "session_updated",
    }
)


class Tasks(Table):
    """One row a task, written by its session's events."""

    name = "tasks"
    categories = ("session",)
    key = ("task_id",)
    columns = COLUMNS
    ignored = IGNORED

    def __init__(self) -> None:
        super().__init__()
        self.folds = FOLDS

    def keys(self, event: Recorded, find: Find) -> Iterable[Key]:
        """The event's task; all tasks of a session that is deleted."""
        if event.event_type == "session_deleted":
            return [(task_id,) for task_id in event.event_data["task_ids"]]
        return ((event.event_data["task_id"],),)


def _session_id(event: Recorded) -> str:
    return event.stream_id.partition("-")[2]


def _created(row: Row | None, event: Recorded) -> Row:
    data = event.event_data
    fresh: Row = dict.fromkeys(COLUMNS)
    fresh |= {name: data[name] for name in COLUMNS if name in data}
    fresh["project"] = identity.slug(data.get("project_id", ""))
    fresh |= {
        "session_id": _session_id(event),
        "status": data.get("status", "pending"),
        "metadata": merged({}, data.get("metadata")),
        "created_at": event.timestamp,
        "updated_at": event.timestamp,
        "sequence_num": event.sequence_num,
        "created_num": event.sequence_num,
    }
    return fresh


def _becoming(status: str | None) -> Fold:
    """The fold of an event that gives the task a status (None: the event's own, if it has one)."""

    def fold(row: Row | None, event: Recorded) -> Row:
        row = there(row)
        data = event.event_data
        new = status or data.get("status")
        if new is not None:
            finished = new in ("completed", "failed")
            row["status"] = new
            row["error_message"] = data.get("error_message")
            row["completed_at"] = event.timestamp if finished else None
            if finished or new == "in_progress":
                row["started_at"] = row["started_at"] or event.timestamp
        row["metadata"] = merged(row["metadata"], data.get("metadata"))
        row["updated_at"] = event.timestamp
        row["sequence_num"] = event.sequence_num
        return row

    return fold


def _deleted(row: Row | None, event: Recorded) -> None:
    return None


FOLDS: dict[str, Fold] = {
    "task_created": _created,
    "task_started": _becoming("in_progress"),
    "task_completed": _becoming("completed"),
    "task_failed": _becoming("failed"),
    "task_blocked": _becoming("blocked"),
    "task_updated": _becoming(None),
    "task_deleted": _deleted,
    "session_deleted": _deleted,
}

SQL = Tasks.sql()
OLDEST_FIRST = Order(
    "list", {"created_at": moment, "session_id": text, "created_num": number}, of="tasks"
)
INTERNAL = frozenset({"namespace", "project", "sequence_num", "created_num"})
PUBLIC = tuple(name for name in COLUMNS if name not in INTERNAL)


def task_reply(row: Row) -> Json:
    """A task as clients see it."""
    return {name: row[name] for name in PUBLIC}


async def get(reads: Reads, namespace: str, task_id: str) -> Json:
    """One task. Raises :class:`TaskNotFound`."""
    row = await reads.one(SQL["get"], namespace, task_id=task_id)
    if row is None:
        raise TaskNotFound.named(task_id)
    return task_reply(row)


async def session_of(reads: Reads, namespace: str, task_id: str) -> str | None:
    """The session whose stream has the task; None for a task that is not there."""
    row = await reads.one(SQL["get"], namespace, task_id=task_id)
    return None if row is None else str(row["session_id"])


async def listed(
    reads: Reads,
    namespace: str,
    page: Page,
    *,
    session_id: str | None = None,
    project_id: str | None = None,
    status: str | None = None,
) -> Json:
    """Tasks, oldest first (S4 3.1.f)."""
    found = await reads.page(
        SQL,
        OLDEST_FIRST,
        namespace,
        page,
        session_id=session_id,
        project_id=None if project_id is None else identity.slug(project_id),
        status=status,
    )
    return page.answer("tasks", [task_reply(row) for row in found.rows], found)


async def of_session(reads: Reads, namespace: str, session_id: str) -> list[Row]:
    """A session's tasks in the order in which they were added."""
    return await reads.all(SQL["of_session"], namespace, session_id=session_id)
