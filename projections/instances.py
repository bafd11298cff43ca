"""The read model of instances, their health and their hierarchy (S0, S1)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from application.eventstore.mapper import Recorded
from domain import identity, liveness
from domain.aggregate import Json
from domain.errors import InstanceNotFound
from domain.instances.hierarchy import PARENT_SCOPE, Scope
from domain.instances.instance import health, is_without_session, restarts_of
from domain.instances.instance_events import CRASH_LOOP_RESET_SECONDS, lost_work
from projections.kernel.paging import fitting, text
from projections.kernel.readmodel import Fold, Row, Table, there
from projections.kernel.reads import WHOLE_MAX, Order, Page, Reads
from projections.supervision import UNSUPERVISED, supervised

COLUMNS = (
    "namespace",
    "instance_id",
    "hash",
    "project",
    "project_name",
    "instance_type",
    "name",
    "scope",
    "parent_id",
    "tags",
    "hostname",
    "tty",
    "codebase",
    "status",
    "context_percent",
    "current_epic",
    "last_epic",
    "last_heartbeat",
    "metrics",
    "activity",
    "activity_reason",
    "git",
    "native_session_id",
    "restart_policy",
    "restarts",
    "told_restarts",
    "crash_looping",
    "predecessor",
    "successor",
    "lost_work",
    "supervisor",
    "supervisor_fence",
    "supervisor_hostname",
    "supervised_since",
    "alive_since",
    "lost_at",
    "created_at",
    "updated_at",
    "closed_at",
    "heartbeat_minute",
)
# What a heartbeat says of the instance; what it leaves out stays as it was.
SAID = ("context_percent", "current_epic", "metrics", "git", "native_session_id")


class Instances(Table):
    """One row an instance; a closed one keeps its row."""

    name = "instances"
    needs = ("ages",)
    categories = ("instance",)
    key = ("instance_id",)
    columns = COLUMNS
    public_views = ("supervisor_sessions",)
    patch_columns = ("last_heartbeat", "heartbeat_minute", "updated_at")
    # Of these a heartbeat changes nothing else (see _heartbeat).
    patch_condition = "t.status = 'active' AND t.restarts = 0 AND NOT t.crash_looping"

    def __init__(self) -> None:
        super().__init__()
        self.patches = {"instance_heartbeat": _beaten}
        self.folds = {name: _touching(change) for name, change in CHANGES.items()}
        self.folds |= dict.fromkeys(NOTED, _touching(_nothing))


def _beaten(event: Recorded) -> Row:
    """What a sign of life that says nothing more changes."""
    return {
        "last_heartbeat": event.timestamp,
        "heartbeat_minute": _minute(event.timestamp),
        "updated_at": event.timestamp,
    }


def _touching(change: Fold) -> Fold:
    """Every event refreshes ``updated_at``."""

    def fold(row: Row | None, event: Recorded) -> Row | None:
        row = change(row, event)
        if row is not None:
            row["updated_at"] = event.timestamp
        return row

    return fold


def _nothing(row: Row | None, event: Recorded) -> Row:
    return there(row)


def _registered(row: Row | None, event: Recorded) -> Row:
    data = event.event_data
    fresh: Row = dict.fromkeys(COLUMNS)
    fresh |= {name: data[name] for name in COLUMNS if name in data}
    return fresh | {
        "hash": event.stream_id.rpartition("-")[2],
        "tags": data.get("tags", []),
        "status": "active",
        "restarts": data.get("restarts", 0),
        "crash_looping": False,
        "alive_since": event.timestamp,
        "created_at": event.timestamp,
        "last_heartbeat": event.timestamp,
        "heartbeat_minute": _minute(event.timestamp),
        **(supervised(event) if "supervisor" in data else UNSUPERVISED),
    }


def _taken_up(row: Row | None, event: Recorded) -> Row:
    return there(row) | supervised(event)


def _put_down(row: Row | None, event: Recorded) -> Row:
    return there(row) | UNSUPERVISED


def _heartbeat(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    data = event.event_data
    if row["status"] == "stale":
        row |= {"status": "active", "alive_since": event.timestamp}
    row |= {"last_heartbeat": event.timestamp, "heartbeat_minute": _minute(event.timestamp)}
    row |= {name: data[name] for name in SAID if name in data}
    if "activity" in data:
        row |= {"activity": data["activity"], "activity_reason": data.get("activity_reason")}
    if "restarts" in data:
        if data["restarts"] <= (row["told_restarts"] or 0):
            row |= {"restarts": 0, "crash_looping": False}
        row["told_restarts"] = data["restarts"]
    beating = liveness.age_seconds(row["alive_since"], event.timestamp)
    if (row["restarts"] or row["crash_looping"]) and beating >= CRASH_LOOP_RESET_SECONDS:
        row |= {"restarts": 0, "crash_looping": False}
    return row


def _stale(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    looping = row["crash_looping"] or event.event_data.get("crash_looping", False)
    return row | {"status": "stale", "crash_looping": looping}


def _joined(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"lost_work": None}


def _left(row: Row | None, event: Recorded) -> Row:
    row, data = there(row), event.event_data
    if data.get("fenced_off"):
        told = {"session_id": data["session_id"], "by": data.get("by")}
        row["lost_work"] = lost_work(event.timestamp, data["reason"], **told)
    return row


def _work_lost(row: Row | None, event: Recorded) -> Row:
    told = {name: event.event_data.get(name) for name in ("session_id", "item_id", "by")}
    return there(row) | {"lost_work": lost_work(event.timestamp, "item_taken_over", **told)}


def _closed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"status": "closed", "closed_at": event.timestamp}


def _resumed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"successor": event.event_data["successor"]}


def _parent_changed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"parent_id": event.event_data.get("parent_id")}


def _restart_requested(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"restarts": event.event_data["attempt"]}


def _lost(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"lost_at": event.timestamp}


def _epic_started(row: Row | None, event: Recorded) -> Row:
    epic = event.event_data.get("epic_id")
    return there(row) | {"last_epic": epic, "current_epic": epic}


def _epic_over(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    epic = event.event_data.get("epic_id")
    row["last_epic"] = epic
    if row["current_epic"] == epic:
        row["current_epic"] = None
    return row


def _context(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"context_percent": event.event_data["context_percent"]}


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // 60


CHANGES: dict[str, Fold] = {
    "instance_registered": _registered,
    "instance_heartbeat": _heartbeat,
    "instance_taken_up": _taken_up,
    "instance_put_down": _put_down,
    "instance_stale": _stale,
    "session_joined": _joined,
    "session_left": _left,
    "work_lost": _work_lost,
    "work_regained": _joined,
    "instance_closed": _closed,
    "instance_resumed": _resumed,
    "parent_changed": _parent_changed,
    "restart_requested": _restart_requested,
    "claim_lost": _lost,
    "epic_started": _epic_started,
    "epic_completed": _epic_over,
    "epic_failed": _epic_over,
    "context_window_updated": _context,
}
# What changes no more of the row than the time of its last event.
NOTED = frozenset(
    {
        "checkpoint_created",
        "checkpoint_loaded",
        "child_added",
        "child_removed",
        "claim_acquired",
        "claim_cancelled",
        "claim_given_up",
        "command_logged",
        "commit_created",
        "deployment_completed",
        "deployment_failed",
        "deployment_started",
        "epic_planned",
        "feature_requested",
        "pr_created",
        "pr_merged",
        "prd_updated",
        "task_spawned",
        "test_failed",
        "test_passed",
        "test_started",
        "validation_failed",
        "validation_passed",
    }
)

SQL = Instances.sql()
BY_PROJECT = Order("list", {"instance_id": text}, seen="instance_id", of="instances")
DISCOVERED = Order(
    "discover",
    {"instance_id": text},
    counting="discover_count",
    seen="instance_id",
    of="instances",
)
INTERNAL = frozenset(
    {"namespace", "hash", "told_restarts", "alive_since", "lost_at", "heartbeat_minute"}
)
PUBLIC = tuple(name for name in COLUMNS if name not in INTERNAL)


def instance_reply(row: Row) -> Json:
    """An instance as clients see it: with the status and health of the moment."""
    view: Json = {name: row[name] for name in PUBLIC}
    how, reasons = health(
        row["status_now"],
        row["heartbeat_age_seconds"],
        row["metrics"],
        row["context_percent"],
        row["crash_looping"],
        is_without_session(row["lost_work"], row["last_heartbeat"], row["activity"]),
    )
    view |= {
        "restarts": restarts_of(row["restarts"], row["told_restarts"], row["supervisor"]),
        "type": row["instance_type"],
        "status": row["status_now"],
        "unknown_since": row["unknown_since"],
        "health": how,
        "age_seconds": row["heartbeat_age_seconds"],
        "uptime_seconds": row["uptime_seconds"],
    }
    if reasons:
        view["health_reasons"] = reasons
    return view


async def find(reads: Reads, namespace: str, reference: str) -> Json:
    """By full id, or by the leading part of an id or of a hash (S0 AC6).

    Raises :class:`InstanceNotFound` also for a part under four characters, or with any character
    that no id has.
    """
    row = await reads.one(SQL["get"], namespace, instance_id=reference)
    if row is not None:
        return {"match": "exact", "instance": instance_reply(row)}
    rows: list[Row] = []
    if identity.is_reference(reference):
        rows = await reads.all(SQL["by_prefix"], namespace, reference=reference)
    if not rows:
        raise InstanceNotFound.named(reference)
    found: Json = {"match": "prefix", "matches": [instance_reply(row) for row in rows]}
    if len(rows) == 1:
        found["instance"] = found["matches"][0]
    return found


async def listed(
    reads: Reads,
    namespace: str,
    page: Page,
    *,
    project: str | None = None,
    active_only: bool = False,
) -> Json:
    """Instances by project, then by heartbeat, the latest first (S0 AC5)."""
    filters: dict[str, Any] = {"project": _slug(project), "active_only": active_only}
    found, counts = await reads.page_and_counts(SQL, BY_PROJECT, namespace, page, **filters)
    if counts is None and page.offset:
        # The end of a list whose beginning is on another page.
        counts = await reads.one(SQL["count"], namespace, **filters)
    if counts is None:
        statuses = [row["status_now"] for row in found.rows]
        counts = {f"{name}_count": statuses.count(name) for name in ("active", "stale")}
        counts["total_count"] = len(found.rows)
    found = found._replace(total=counts["total_count"])
    answer = page.answer("instances", [instance_reply(row) for row in found.rows], found)
    return answer | {name: counts[name] for name in ("active_count", "stale_count")}


async def discovered(
    reads: Reads,
    namespace: str,
    page: Page,
    *,
    project: str | None = None,
    available_parents_for: Scope | None = None,
    **criteria: str | None,
) -> Json:
    """Instances that meet every criterion (S1 task 1)."""
    parent_scope: str | None = None
    if available_parents_for is not None:
        # Nothing can be the parent of a global instance.
        parent_scope = PARENT_SCOPE[available_parents_for] or "none"
    found = await reads.page(
        SQL,
        DISCOVERED,
        namespace,
        page,
        project=_slug(project),
        parent_scope=parent_scope,
        **criteria,
    )
    return page.answer("instances", [instance_reply(row) for row in found.rows], found)


async def topology(reads: Reads, namespace: str) -> Json:
    """The forest of all instances that have not been closed (S1 task 4).

    An instance whose parent has been closed stands at the root and among the orphans.
    """
    rows, total = await _forest(reads, namespace)
    all_nodes = [
        {**instance_reply(row), "orphan": row["is_orphan"], "children": []} for row in rows
    ]
    nodes: dict[str, Json] = {node["instance_id"]: node for node in all_nodes[: fitting(all_nodes)]}
    roots: list[Json] = []
    for node in nodes.values():
        parent = nodes.get(node["parent_id"] or "")
        (roots if parent is None else parent["children"]).append(node)
    return {
        "roots": roots,
        "orphans": [name for name, node in nodes.items() if node["orphan"]],
        "total_count": total,
        **({"has_more": True} if total > len(nodes) else {}),
    }


async def healths(reads: Reads, namespace: str) -> Json:
    """How all instances that have not been closed are, and why (S1 task 3)."""
    rows, total = await _forest(reads, namespace)
    instances = [instance_reply(row) for row in rows]
    counts = dict.fromkeys(("healthy", "degraded", "stale"), 0)
    for instance in instances:
        counts[instance["health"]] += 1
    shown = (
        "instance_id",
        "project",
        "scope",
        "status",
        "health",
        "health_reasons",
        "last_heartbeat",
        "unknown_since",
        "age_seconds",
        "uptime_seconds",
        "activity",
        "activity_reason",
    )
    told = [
        {name: i[name] for name in shown if name in i} | {"metrics": _five_metrics(i)}
        for i in instances
    ]
    count = fitting(told)
    return {
        "status": "healthy" if counts["healthy"] == len(instances) else "degraded",
        "counts": counts,
        "instances": told[:count],
        "total_count": total,
        **({"has_more": True} if total > count else {}),
    }


async def _forest(reads: Reads, namespace: str) -> tuple[list[Row], int]:
    """The instances that have not been closed, the oldest first, and how many there are."""
    rows = await reads.all(SQL["forest"], namespace, limit=WHOLE_MAX + 1)
    if len(rows) <= WHOLE_MAX:
        return rows, len(rows)
    counts = await reads.one(SQL["count"], namespace, project=None, active_only=True)
    assert counts is not None
    return rows[:WHOLE_MAX], int(counts["total_count"])


async def silent(reads: Reads, namespace: str) -> list[str]:
    """Candidates for recording that they are stale."""
    return [row["instance_id"] for row in await reads.all(SQL["silent"], namespace)]


async def passed_on(reads: Reads, namespace: str, silent_seconds: float) -> list[str]:
    """Candidates for ending: stale, and silent for so long."""
    rows = await reads.all(SQL["passed_on"], namespace, silent_seconds=silent_seconds)
    return [row["instance_id"] for row in rows]


def _slug(project: str | None) -> str | None:
    """A project as the rows have it: readers may give its original name as well."""
    return None if project is None else identity.slug(project)


def _five_metrics(instance: Json) -> Json:
    """S1's metrics: four that the instance reports, and its uptime."""
    said = instance["metrics"] or {}
    names = ("active_tasks", "queue_depth", "response_time_ms", "error_rate")
    return {name: said.get(name) for name in names} | {"uptime": instance["uptime_seconds"]}
