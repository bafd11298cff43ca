"""The operations about the service itself: when it was reachable, its dead letters (spec 5)."""

from __future__ import annotations

from domain.aggregate import Json
from interfaces.operations.base import Listing, Operation, Services, query
from interfaces.replies import serving as replies
from projections import dead_letters, serving


async def _intervals(s: Services, namespace: str, p: Listing) -> Json:
    """List the intervals in which the service was reachable, the latest first."""
    return await serving.intervals(s.reads, namespace, p.page)


async def _dead_letters(s: Services, namespace: str, p: Listing) -> Json:
    """List dead letters: events that a read model could not fold, so its replies lack them."""
    return await dead_letters.listed(s.reads, namespace, p.page)


ROWS: tuple[Operation, ...] = (
    query("serving_intervals", "/api/serving", Listing, _intervals, reply=replies.ServingIntervals),
    query(
        "list_dead_letters",
        "/api/dead-letters",
        Listing,
        _dead_letters,
        reply=replies.DeadLetterPage,
    ),
)
