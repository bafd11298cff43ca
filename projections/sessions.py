"""The read model of sessions (S3 FR-5, S4 2.1, 2.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from application.eventstore.mapper import Recorded
from domain import identity
from domain.aggregate import Json, iso, merged
from domain.claims.claim import is_work_item
from domain.errors import SessionNotFound
from projections.kernel.paging import moment, text
from projections.kernel.readmodel import Fold, Row, Table, there
from projections.kernel.reads import WHOLE_MAX, Order, Page, Reads
from projections.serving import unheard
from projections.supervision import UNSUPERVISED, supervised

COLUMNS = (
    "namespace",
    "session_id",
    "project_id",
    "project",
    "machine_id",
    "docker_slot",
    "status",
    "last_heartbeat",
    "current_task_id",
    "started_at",
    "completed_at",
    "metadata",
    "instance_id",
    "hostname",
    "tty",
    "codebase",
    "stall_threshold_ms",
    "outcome",
    "recovered_from",
    "recovered_to",
    "superseded_by",
    "supervisor",
    "supervisor_fence",
    "supervisor_hostname",
    "supervised_since",
    "instance_before",
    "archived_at",
    "created_at",
    "updated_at",
    "held",
    "held_since",
    "released_items",
    "status_num",
    "heartbeat_num",
    "heartbeat_minute",
)


SIGNS_OF_LIFE = frozenset({"session_created", "session_heartbeat", "session_activated"})


class Sessions(Table):
    """One row a session; a deleted one has none."""

    name = "sessions"
    needs = ("ages",)
    categories = ("session",)
    public_views = ("v_active_sessions", "stalled_sessions")
    key = ("session_id",)
    columns = COLUMNS
    patch_columns = ("last_heartbeat", "heartbeat_num", "heartbeat_minute", "updated_at")

    def __init__(self) -> None:
        super().__init__()
        self.folds = {name: _touching(change) for name, change in CHANGES.items()}
        self.patches = {"session_heartbeat": _beaten}


def _beaten(event: Recorded) -> Row:
    """What a sign of life changes, whatever the row."""
    return {
        "last_heartbeat": event.timestamp,
        "heartbeat_num": event.sequence_num,
        "heartbeat_minute": int(event.timestamp.timestamp()) // 60,
        "updated_at": event.timestamp,
    }


def _touching(change: Fold) -> Fold:
    """Every event refreshes ``updated_at``; the row keeps which events its answers rest on."""

    def fold(row: Row | None, event: Recorded) -> Row | None:
        before = row["status"] if row else None
        row = change(row, event)
        if row is not None:
            if row["status"] != before:
                row["status_num"] = event.sequence_num
            # Not by the time: two events of one batch have the same.
            if event.event_type in SIGNS_OF_LIFE:
                row |= _beaten(event)
            row["updated_at"] = event.timestamp
        return row

    return fold


def _created(row: Row | None, event: Recorded) -> Row:
    data = event.event_data
    fresh: Row = dict.fromkeys(COLUMNS)
    fresh |= {name: data[name] for name in COLUMNS if name in data}
    fresh["project"] = identity.slug(data.get("project_id", ""))
    fresh |= {
        "status": "active",
        "metadata": merged({}, data.get("metadata")),
        "held": {},
        "held_since": {},
        "released_items": [],
        "started_at": event.timestamp,
        "created_at": event.timestamp,
        "last_heartbeat": event.timestamp,
    }
    return fresh | (supervised(event) if "supervisor" in data else {})


def _taken_up(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    instance_id = event.event_data.get("instance_id") or row["instance_id"]
    return row | {
        **supervised(event),
        "instance_before": row["instance_id"],
        "instance_id": instance_id,
    }


def _put_down(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    return row | {**UNSUPERVISED, "instance_id": row["instance_before"]}


def _heartbeat(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    row["last_heartbeat"] = event.timestamp
    if data := event.event_data:
        row["current_task_id"] = data.get("current_task_id", row["current_task_id"])
        row["metadata"] = merged(row["metadata"], data.get("metadata"))
    return row


def _updated(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    if "current_task_id" in event.event_data:
        row["current_task_id"] = event.event_data["current_task_id"] or None
    row["metadata"] = merged(row["metadata"], event.event_data.get("metadata"))
    return row


def _activated(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"status": "active", "last_heartbeat": event.timestamp}


def _paused(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"status": "paused"}


def _stalled(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"status": "stalled"}


def _completed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {
        "status": "completed",
        "outcome": "completed",
        "completed_at": event.timestamp,
    }


def _failed(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    data = event.event_data
    context: Json = {**data.get("metadata", {}), "error_message": data["error_message"]}
    return row | {
        "status": "failed",
        "outcome": "superseded" if data.get("superseded") else "failed",
        "completed_at": event.timestamp,
        "metadata": merged(row["metadata"], context),
    }


def _recovery_prepared(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    if event.event_data.get("machine_cleared"):
        row["machine_id"] = None
    row["metadata"] = {**row["metadata"], "recovery_prepared_at": iso(event.timestamp)}
    return row


def _recovered(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    successor = event.event_data["recovered_to"]
    return row | {
        "status": "completed",
        "outcome": "recovered",
        "recovered_to": successor,
        "completed_at": row["completed_at"] or event.timestamp,
        "metadata": {
            **row["metadata"],
            "recovery": {"outcome": "recovered", "recovered_to": successor},
        },
    }


def _archived(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    marks = {"archived": True, "archived_at": iso(event.timestamp)}
    return row | {"archived_at": event.timestamp, "metadata": {**row["metadata"], **marks}}


def _deleted(row: Row | None, event: Recorded) -> None:
    return None


def _claim_acquired(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    resource = event.event_data["resource"]
    row["held"] = {**row["held"], resource: event.event_data["fence"]}
    if is_work_item(resource):
        row["held_since"] = {**row["held_since"], resource: iso(event.timestamp)}
    return row


def _without(row: Row, resource: str) -> Row:
    for of_each in ("held", "held_since"):
        row[of_each] = {k: v for k, v in row[of_each].items() if k != resource}
    return row


def _claim_given_up(row: Row | None, event: Recorded) -> Row:
    resource = event.event_data["resource"]
    row = _without(there(row), resource)
    broke_off = row["status"] == "failed" or row["superseded_by"] is not None
    if broke_off and is_work_item(resource):
        row["released_items"] = [*row["released_items"], resource]
    return row


def _claim_lost(row: Row | None, event: Recorded) -> Row:
    row = _without(there(row), event.event_data["resource"])
    if not is_work_item(event.event_data["resource"]) and not row["recovered_to"]:
        row["superseded_by"] = event.event_data["taken_by"]
    return row


def _claim_cancelled(row: Row | None, event: Recorded) -> Row:
    return _without(there(row), event.event_data["resource"])


def _task_started(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"current_task_id": event.event_data["task_id"]}


def _task_over(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    if row["current_task_id"] == event.event_data["task_id"]:
        row["current_task_id"] = None
    return row


def _task_changed(row: Row | None, event: Recorded) -> Row:
    return there(row)


CHANGES: dict[str, Fold] = {
    "session_created": _created,
    "session_heartbeat": _heartbeat,
    "session_taken_up": _taken_up,
    "session_put_down": _put_down,
    "session_updated": _updated,
    "session_activated": _activated,
    "session_paused": _paused,
    "session_stalled": _stalled,
    "session_completed": _completed,
    "session_failed": _failed,
    "session_recovery_prepared": _recovery_prepared,
    "session_recovered": _recovered,
    "session_archived": _archived,
    "session_deleted": _deleted,
    "claim_acquired": _claim_acquired,
    "claim_given_up": _claim_given_up,
    "claim_lost": _claim_lost,
    "claim_cancelled": _claim_cancelled,
    "task_created": _task_changed,
    "task_started": _task_started,
    "task_completed": _task_over,
    "task_failed": _task_over,
    "task_blocked": _task_changed,
    "task_updated": _task_changed,
    "task_deleted": _task_over,
}


SQL = Sessions.sql()
NEWEST_FIRST = Order("list", {"created_at": moment, "session_id": text}, of="sessions")
LATEST_FIRST = Order(
    "active", {"session_id": text}, counting="active_count", seen="session_id", of="sessions"
)
# What the table has beyond what clients see of a session.
INTERNAL = frozenset(
    {
        "namespace",
        "project",
        "held",
        "held_since",
        "released_items",
        "instance_before",
        "status_num",
        "heartbeat_num",
        "heartbeat_minute",
    }
)
PUBLIC = tuple(name for name in COLUMNS if name not in INTERNAL)


def session_reply(row: Row) -> Json:
    """A session as clients see it: with the status of the moment."""
    view: Json = {name: row[name] for name in PUBLIC}
    view["status"] = row["status_now"]
    view["unknown_since"] = row["unknown_since"]
    view["archived"] = row["archived_at"] is not None
    return view


async def get(reads: Reads, namespace: str, session_id: str) -> Json:
    """One session. Raises :class:`SessionNotFound`."""
    return session_reply(await row_of(reads, namespace, session_id))


async def row_of(reads: Reads, namespace: str, session_id: str) -> Row:
    """One session's row with the moment's status and age. Raises :class:`SessionNotFound`."""
    row = await reads.one(SQL["get"], namespace, session_id=session_id)
    if row is None:
        raise SessionNotFound.named(session_id)
    return row


async def listed(
    reads: Reads,
    namespace: str,
    page: Page,
    *,
    project_id: str | None = None,
    machine_id: str | None = None,
    status: str | None = None,
    archived: bool = False,
) -> Json:
    """Sessions, newest first (S4 2.1.e). ``status`` is that of the moment."""
    filters: dict[str, Any] = {
        "project_id": None if project_id is None else identity.slug(project_id),
        "machine_id": machine_id,
        "status": status,
        "archived": archived,
    }
    found = await reads.page(SQL, NEWEST_FIRST, namespace, page, **filters)
    return page.answer("sessions", [session_reply(row) for row in found.rows], found)


async def active(reads: Reads, namespace: str, page: Page) -> Json:
    """S3's enhanced view: one row for each live session, the latest heartbeat first."""
    found = await reads.page(SQL, LATEST_FIRST, namespace, page)
    rows = [
        {name: value for name, value in row.items() if name != "namespace"} for row in found.rows
    ]
    return page.answer("sessions", rows, found)


async def health(reads: Reads, namespace: str) -> Json:
    """How many sessions there are of each status at this moment; they add up (S4 2.4.a)."""
    row = await reads.one(SQL["health"], namespace)
    assert row is not None
    return row


async def health_of(reads: Reads, namespace: str, session_id: str) -> Json:
    """One session's health (S4 2.4.d)."""
    row = await row_of(reads, namespace, session_id)
    status = row["status_now"]
    return {
        "session_id": session_id,
        "is_healthy": status == "active",
        "status": status,
        "last_heartbeat": row["last_heartbeat"],
        "time_since_heartbeat_ms": int(row["heartbeat_age_seconds"] * 1000),
        "is_stalled": status == "stalled",
        "stall_threshold_ms": row["effective_threshold_ms"],
        **unheard(row),
    }


async def stalled(reads: Reads, namespace: str) -> tuple[list[Row], bool]:
    """The stalled sessions, the longest silent first, and whether there are more (S4 2.4.b)."""
    rows = await reads.all(SQL["stalled"], namespace, limit=WHOLE_MAX + 1)
    return rows[:WHOLE_MAX], len(rows) > WHOLE_MAX


async def overdue(reads: Reads, namespace: str) -> list[str]:
    """Candidates for recording a stall."""
    return [row["session_id"] for row in await reads.all(SQL["overdue"], namespace)]


async def expired(reads: Reads, namespace: str, ended_before: datetime) -> list[str]:
    """Candidates for clean-up."""
    rows = await reads.all(SQL["expired"], namespace, ended_before=ended_before)
    return [row["session_id"] for row in rows]


async def passed_on(reads: Reads, namespace: str) -> list[str]:
    """Candidates for ending: of those another has the place, and they are silent."""
    rows = await reads.all(SQL["passed_on"], namespace)
    return [row["session_id"] for row in rows]


async def of_instance(reads: Reads, namespace: str, instance_id: str) -> list[str]:
    """The sessions that name an instance."""
    rows = await reads.all(SQL["of_instance"], namespace, instance_id=instance_id)
    return [row["session_id"] for row in rows]
