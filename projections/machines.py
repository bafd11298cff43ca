"""The read model of machines and the sessions on them (S4 2.3)."""

from __future__ import annotations

from application.eventstore.mapper import Recorded
from domain.aggregate import Json, merged
from domain.errors import MachineNotFound
from projections.kernel.paging import moment, text
from projections.kernel.readmodel import Fold, Row, Table, there
from projections.kernel.reads import Order, Page, Reads

COLUMNS = (
    "namespace",
    "machine_id",
    "hostname",
    "docker_slots",
    "status",
    "last_heartbeat",
    "metadata",
    "created_at",
    "updated_at",
)


class Machines(Table):
    """One row a machine."""

    name = "machines"
    needs = ("sessions",)
    categories = ("machine",)
    key = ("machine_id",)
    columns = COLUMNS

    def __init__(self) -> None:
        super().__init__()
        self.folds = FOLDS


def _registered(row: Row | None, event: Recorded) -> Row:
    data = event.event_data
    return {
        "hostname": data["hostname"],
        "docker_slots": data.get("docker_slots", []),
        "status": "online",
        "last_heartbeat": event.timestamp,
        "metadata": merged({}, data.get("metadata")),
        "created_at": event.timestamp,
        "updated_at": event.timestamp,
    }


def _heartbeat(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    if row["status"] == "offline":
        row["status"] = "online"
    return row | {
        "last_heartbeat": event.timestamp,
        "updated_at": event.timestamp,
        "metadata": merged(row["metadata"], event.event_data.get("metadata")),
    }


def _updated(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    data = event.event_data
    given = {name: data[name] for name in ("hostname", "docker_slots", "status") if name in data}
    metadata = merged(row["metadata"], data.get("metadata"))
    return row | given | {"metadata": metadata, "updated_at": event.timestamp}


def _removed(row: Row | None, event: Recorded) -> None:
    return None


FOLDS: dict[str, Fold] = {
    "machine_registered": _registered,
    "machine_heartbeat": _heartbeat,
    "machine_updated": _updated,
    "machine_removed": _removed,
}

SQL = Machines.sql()
OLDEST_FIRST = Order("list", {"created_at": moment, "machine_id": text}, of="machines")
PUBLIC = (*COLUMNS[1:4], "active_sessions", *COLUMNS[4:])


def machine_reply(row: Row) -> Json:
    """A machine as clients see it."""
    return {name: row[name] for name in PUBLIC}


async def get(reads: Reads, namespace: str, machine_id: str) -> Json:
    """One machine. Raises :class:`MachineNotFound`."""
    row = await reads.one(SQL["get"], namespace, machine_id=machine_id)
    if row is None:
        raise MachineNotFound.named(machine_id)
    return machine_reply(row)


async def active_sessions(reads: Reads, namespace: str, machine_id: str) -> list[str]:
    """The live sessions on a machine, which need not be known."""
    row = await reads.one(SQL["get"], namespace, machine_id=machine_id)
    return [] if row is None else list(row["active_sessions"])


async def listed(reads: Reads, namespace: str, page: Page, *, status: str | None = None) -> Json:
    """Machines, oldest first (S4 2.3.f)."""
    found = await reads.page(SQL, OLDEST_FIRST, namespace, page, status=status)
    return page.answer("machines", [machine_reply(row) for row in found.rows], found)
