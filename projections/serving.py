"""When the service could be reached: what its own absence made of everyone's silence (spec 5)."""

from __future__ import annotations

from application.eventstore import sql
from domain.aggregate import Json
from projections.kernel.paging import number
from projections.kernel.readmodel import Row
from projections.kernel.reads import Order, Page, Reads

SQL = sql.load("projections", "serving.sql")
LATEST_FIRST = Order("intervals", {"interval_num": number}, of="serving")


async def intervals(reads: Reads, namespace: str, page: Page) -> Json:
    """The stretches of time without a gap, the latest first, and what is so at this moment."""
    found = await reads.page(SQL, LATEST_FIRST, namespace, page)
    now = await reads.one(SQL["now"], namespace)
    assert now is not None
    shown = [{k: v for k, v in row.items() if k != "interval_num"} for row in found.rows]
    return now | page.answer("intervals", shown, found)


def unheard(row: Row) -> Json:
    """``unknown_since`` for a reply whose fields S4 fixes: there only after an absence."""
    since = row["unknown_since"]
    return {} if since is None else {"unknown_since": since}
