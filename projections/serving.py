"""When the service could be reached: what its own absence made of everyone's silence (spec 5)."""

from __future__ import annotations

from application.eventstore import sql
from domain.aggregate import Json
from projections.reads import Page, Reads

SQL = sql.load("projections", "serving.sql")


async def intervals(reads: Reads, namespace: str, page: Page) -> Json:
    """The stretches of time without a gap, the latest first, and what is so at this moment."""
    rows, total = await reads.page(SQL["intervals"], SQL["count"], namespace, page)
    now = await reads.one(SQL["now"], namespace)
    assert now is not None
    return now | page.answer("intervals", rows, total)
