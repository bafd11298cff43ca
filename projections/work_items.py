"""The read model of work items and claims: the work queue (S3, spec 6)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from application.eventstore.mapper import Recorded
from domain.aggregate import Json
from domain.claims.claim import is_work_item
from domain.errors import ClaimNotFound, WorkItemNotFound
from projections.kernel.paging import moment, number, text
from projections.kernel.readmodel import Find, Fold, Key, Row, Table, there
from projections.kernel.reads import Order, Page, Reads

COLUMNS = (
    "namespace",
    "item_id",
    "title",
    "track",
    "priority",
    "depends_on",
    "status",
    "holder_kind",
    "holder_id",
    "hostname",
    "tty",
    "codebase",
    "fence",
    "claimed_at",
    "last_machine_id",
    "completed_at",
    "completed_by",
    "open_dependencies",
    "cancelled_at",
    "status_reason",
    "created_at",
    "updated_at",
    "listed_at",
)
DESCRIPTION = ("title", "track")
OWNER = ("holder_kind", "holder_id", "hostname", "tty", "codebase")


class WorkItems(Table):
    """One row a work item, from the events of its claim; places and slots have none.

    A removed item keeps one, which no reader sees: nothing waits for what was removed.
    """

    name = "work_items"
    needs = ("ages", "sessions", "instances")
    categories = ("claim",)
    public_views = ("work_queue",)
    key = ("item_id",)
    columns = COLUMNS

    def __init__(self) -> None:
        super().__init__()
        self.folds = FOLDS

    def keys(self, event: Recorded, find: Find) -> Iterable[Key]:
        """The claim's resource, if it is work."""
        return [key for key in super().keys(event, find) if is_work_item(*key)]


def _listed(row: Row | None, event: Recorded) -> Row:
    data = event.event_data
    if row is None or row["status"] == "removed":
        row = dict.fromkeys(COLUMNS)
        row |= {"status": "open", "created_at": event.timestamp, "listed_at": event.position}
        row["open_dependencies"] = []
    row |= {name: data.get(name) for name in DESCRIPTION}
    return row | {
        "priority": data.get("priority", 0),
        "depends_on": data.get("depends_on", []),
        "updated_at": event.timestamp,
    }


def _granted(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    data = event.event_data
    row |= {name: data.get(name) for name in OWNER}
    return row | {
        "status": "claimed",
        "fence": event.sequence_num,
        "claimed_at": event.timestamp,
        "last_machine_id": data.get("machine_id", row["last_machine_id"]),
        "updated_at": event.timestamp,
    }


def _released(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    row |= dict.fromkeys(OWNER)
    return row | {
        "status": _freed(row),
        "claimed_at": None,
        "updated_at": event.timestamp,
    }


def _completed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {
        "status": "completed",
        "completed_at": event.timestamp,
        "completed_by": event.event_data["completed_by"],
        "open_dependencies": event.event_data.get("open_dependencies", []),
        "updated_at": event.timestamp,
    }


def _freed(row: Row) -> str:
    if row["completed_at"] is not None:
        return "completed"
    return "open" if row["cancelled_at"] is None else "cancelled"


def _reopened(row: Row | None, event: Recorded) -> Row:
    return there(row) | {
        "status": "open",
        "completed_at": None,
        "completed_by": None,
        "open_dependencies": [],
        "cancelled_at": None,
        "status_reason": event.event_data["reason"],
        "updated_at": event.timestamp,
    }


def _cancelled(row: Row | None, event: Recorded) -> Row:
    return there(row) | {
        "status": "cancelled",
        "cancelled_at": event.timestamp,
        "status_reason": event.event_data.get("reason"),
        "updated_at": event.timestamp,
    }


def _removed(row: Row | None, event: Recorded) -> Row:
    return there(row) | {"status": "removed", "updated_at": event.timestamp}


FOLDS: dict[str, Fold] = {
    "work_item_listed": _listed,
    "claim_granted": _granted,
    "claim_taken_over": _granted,
    "claim_released": _released,
    "work_item_completed": _completed,
    "work_item_reopened": _reopened,
    "work_item_cancelled": _cancelled,
    "work_item_removed": _removed,
}

SQL = WorkItems.sql()
BY_PRIORITY = Order("list", {"priority": number, "listed_at": number}, of="work_items")
LATEST_CLAIM = Order(
    "claims", {"claimed_at": moment, "item_id": text}, counting="claims_count", of="work_items"
)
INTERNAL = frozenset({"namespace", "listed_at", "seconds_until_takeover"})
OF_A_CLAIM = (
    "item_id",
    "title",
    "track",
    "priority",
    "status",
    "holder",
    "holder_kind",
    "hostname",
    "tty",
    "codebase",
    "fence",
    "claimed_at",
    "claim_duration_minutes",
    "heartbeat_age_seconds",
    "heartbeat_age_human",
    "stale",
    "unknown_since",
    "seconds_until_takeover",
)


def work_item_reply(row: Row) -> Json:
    """A work item as clients see it, with who works on it."""
    return {name: value for name, value in row.items() if name not in INTERNAL}


def claim_reply(row: Row) -> Json:
    """A claim as clients see it, with how its holder is."""
    claim: Json = {name: row[name] for name in OF_A_CLAIM}
    claim["session_id"], claim["instance_id"] = row["active_session_id"], row["active_instance_id"]
    return claim


async def get(reads: Reads, namespace: str, item_id: str) -> Json:
    """One work item. Raises :class:`WorkItemNotFound`."""
    row = await reads.one(SQL["get"], namespace, item_id=item_id)
    if row is None:
        raise WorkItemNotFound.named(item_id)
    return work_item_reply(row)


async def listed(
    reads: Reads,
    namespace: str,
    page: Page,
    *,
    status: str | None = None,
    track: str | None = None,
) -> Json:
    """Work items, the highest priority first, then in the order in which they were listed."""
    found = await reads.page(SQL, BY_PRIORITY, namespace, page, status=status, track=track)
    return page.answer("work_items", [work_item_reply(row) for row in found.rows], found)


async def claim(reads: Reads, namespace: str, item_id: str) -> Json:
    """The claim on one item. Raises :class:`ClaimNotFound` if nobody ever claimed it."""
    row = await reads.one(SQL["get"], namespace, item_id=item_id)
    if row is None or row["fence"] is None:
        raise ClaimNotFound.named(item_id)
    return claim_reply(row)


async def claims(reads: Reads, namespace: str, page: Page, *, holder: str | None = None) -> Json:
    """What is held now, by anyone or by one holder, the latest claim first."""
    found = await reads.page(SQL, LATEST_CLAIM, namespace, page, holder=holder)
    return page.answer("claims", [claim_reply(row) for row in found.rows], found)


async def claimable(
    reads: Reads,
    namespace: str,
    limit: int,
    *,
    session_id: str | None,
    instance_id: str | None,
    hostname: str | None,
    track: str | None,
    takeover: bool = False,
    besides: Collection[str] = (),
) -> list[str]:
    """Candidates for the next claim of a session or instance, the best first; none of ``besides``.

    ``hostname`` is where it says to be, if nothing else is known of its machine; with ``takeover``
    those are among them whose holder has been silent for long enough. Whether one of them can be
    claimed is for its claim to decide.
    """
    rows = await reads.all(
        SQL["next"],
        namespace,
        session_id=session_id,
        instance_id=instance_id,
        hostname=hostname,
        track=track,
        takeover=takeover,
        besides=list(besides),
        limit=limit,
    )
    return list(dict.fromkeys(row["item_id"] for row in rows))


async def behind(
    reads: Reads, namespace: str, limit: int, item_ids: Sequence[str], item_id: str | None = None
) -> list[str]:
    """What would have to be done before these items, or before this one, as far as is known."""
    rows = await reads.all(
        SQL["behind"], namespace, item_ids=list(item_ids), item_id=item_id, limit=limit
    )
    return [row["item_id"] for row in rows]
