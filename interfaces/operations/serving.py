"""When the service itself could be reached (spec 5)."""

from __future__ import annotations

from domain.aggregate import Json
from interfaces.operations.base import Listing, Operation, Services, query
from projections import serving


async def _intervals(s: Services, namespace: str, p: Listing) -> Json:
    """When the service could be reached, the latest first; between two intervals it was away."""
    return await serving.intervals(s.reads, namespace, p.page)


ROWS: tuple[Operation, ...] = (query("serving_intervals", "/api/serving", Listing, _intervals),)
