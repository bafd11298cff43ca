"""Dead letters: events that a read model could not fold and has set aside.

They are retried by rebuilding the read model, which folds them in order or sets them aside again. A
read model with a new version of its folds is rebuilt by itself.
"""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from application.eventstore import sql
from domain.aggregate import Json
from projections.kernel.paging import number, text
from projections.kernel.reads import Order, Page, Reads

SQL = sql.load("projections", "dead_letters.sql")
IN_ORDER = Order("list", {"position": number, "read_model": text}, of="dead_letters")


async def listed(reads: Reads, namespace: str, page: Page) -> Json:
    """A namespace's dead letters, as its log has them."""
    found = await reads.page(SQL, IN_ORDER, namespace, page, places=reads.places)
    return page.answer("dead_letters", found.rows, found)


def affected(connection: psycopg.Connection, places: Collection[str]) -> dict[str, int]:
    """How many there are in all namespaces, by the read model that could not fold them."""
    return dict(connection.execute(SQL["affected"], {"places": list(places)}).fetchall())
