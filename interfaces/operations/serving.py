"""How the service itself fares: when it could be reached, what it could not fold (spec 5)."""

from __future__ import annotations

from domain.aggregate import Json
from interfaces.operations.base import Listing, Operation, Services, query
from projections import dead_letters, serving


async def _intervals(s: Services, namespace: str, p: Listing) -> Json:
    """When the service could be reached, the latest first; between two intervals it was away."""
    return await serving.intervals(s.reads, namespace, p.page)


async def _dead_letters(s: Services, namespace: str, p: Listing) -> Json:
    """Events that a read model could not fold: replies from that model lack what they say."""
    return await dead_letters.listed(s.reads, namespace, p.page)


ROWS: tuple[Operation, ...] = (
    query("serving_intervals", "/api/serving", Listing, _intervals),
    query("list_dead_letters", "/api/dead-letters", Listing, _dead_letters),
)
