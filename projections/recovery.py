"""What a resuming agent needs to know about a session that broke off (S4 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from domain.aggregate import Json
from domain.claims.claim import is_work_item
from domain.errors import SessionNotFound
from projections.kernel.readmodel import ReadModel, Row
from projections.kernel.reads import Reads
from projections.serving import unheard
from projections.tasks import PUBLIC as TASK_FIELDS

TIMES = ("started_at", "completed_at", "created_at", "updated_at")
# A paragraph stays one: of each kind so many are named, and so much of each text is told.
MOST_NAMED = 20
MOST_TOLD = 500
GROUPS = ("failed_tasks", "in_progress_tasks", "pending_tasks", "blocked_tasks")


class Recovery(ReadModel):
    """A view over sessions and tasks."""

    name = "recovery"
    needs = ("sessions", "tasks")
    public_views = ("recovery_state",)


SQL = Recovery.sql()


async def state(reads: Reads, namespace: str, session_id: str) -> Json:
    """The recovery state of a session. Raises :class:`SessionNotFound`."""
    row = await reads.one(SQL["get"], namespace, session_id=session_id)
    if row is None:
        raise SessionNotFound.named(session_id)
    last = row["last_successful_task"]
    return {
        "session_id": session_id,
        "project_id": row["project_id"],
        "status": row["status"],
        "last_successful_task": last and _task(last),
        **{group: [_task(task) for task in row[group]] for group in GROUPS},
        "held_claims": [
            {"item_id": item, "fence": fence}
            for item, fence in sorted(row["held"].items())
            if is_work_item(item)
        ],
        # What it let go of as it broke off; its successor claims again what is still free.
        "released_items": row["released_items"],
        "last_heartbeat": row["last_heartbeat"],
        "checkpoint": row["metadata"].get("checkpoint"),
        "metadata": row["metadata"],
        "recovered_to": row["recovered_to"],
        "brief": brief(row),
        **unheard(row),
    }


def brief(row: Row) -> str:
    """A paragraph that a resuming agent can be given. Numbers in brackets: the stream's events."""
    where = f" on machine {row['machine_id']}" if row["machine_id"] else ""
    beat = row["last_heartbeat"].strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [
        f"Session {row['session_id']} of project {row['project_id']}{where} is {row['status']}"
        f" [{row['status_num']}]; its last heartbeat was at {beat} [{row['heartbeat_num']}]."
    ]
    if error := row["metadata"].get("error_message"):
        parts.append(f"It failed with: {_short(str(error))}.")
    last = row["last_successful_task"]
    if last:
        parts.append(
            f"{_count(row['completed_count'], 'task')} completed, the last one {_named([last])}."
        )
    else:
        parts.append("No task was completed.")
    for group, what in (
        ("in_progress_tasks", "In progress when it stopped"),
        ("failed_tasks", "Failed"),
        ("blocked_tasks", "Blocked"),
        ("pending_tasks", "Still to do"),
    ):
        if row[group]:
            parts.append(f"{what}: {_named(row[group])}.")
    if items := sorted(filter(is_work_item, row["held"])):
        parts.append(f"It holds {_items(items)}.")
    if row["released_items"]:
        parts.append(f"It had claimed {_items(row['released_items'])}.")
    if row["recovered_to"]:
        parts.append(f"Session {row['recovered_to']} carries the work on.")
    return " ".join(parts)


def _named(tasks: Sequence[Row]) -> str:
    named = []
    for task in tasks[:MOST_NAMED]:
        why = f" ({_short(task['error_message'])})" if task.get("error_message") else ""
        named.append(f"“{_short(task['task_name'])}”{why} [{task['sequence_num']}]")
    if more := len(tasks) - len(named):
        named.append(f"and {more} more")
    return ", ".join(named)


def _items(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


def _short(text: str) -> str:
    return text if len(text) <= MOST_TOLD else f"{text[: MOST_TOLD - 1]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _task(task: Row) -> Json:
    """A task that came as JSON: its times are put in the form that every reply has."""
    view: Json = {name: task[name] for name in TASK_FIELDS}
    for name in TIMES:
        if view[name] is not None:
            view[name] = datetime.fromisoformat(view[name])
    return view
