"""What may hold claims, and how it notes on its own stream what it holds (spec 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain.aggregate import Aggregate, Event


class HolderEvent(Event):
    """An event of a holder's stream about a claim, whose own stream has the other half."""

    resource: str


class ClaimAcquired(HolderEvent):
    """The holder has a resource, under this fence."""

    event_type = "claim_acquired"
    fence: int

    def change(self, holder: Holder) -> None:
        holder.held[self.resource] = self.fence


class ClaimLost(HolderEvent):
    """Another holder took the resource over."""

    event_type = "claim_lost"
    taken_by: str

    def change(self, holder: Holder) -> None:
        holder.held.pop(self.resource, None)
        holder.displaced(self.resource, self.taken_by)


class ClaimGivenUp(HolderEvent):
    """The holder let go of a resource."""

    event_type = "claim_given_up"

    def change(self, holder: Holder) -> None:
        holder.held.pop(self.resource, None)


EVENTS: tuple[type[HolderEvent], ...] = (ClaimAcquired, ClaimLost, ClaimGivenUp)


@dataclass(slots=True, kw_only=True)
class Holder(Aggregate):
    """An aggregate that claims name as their holder."""

    # Resource to fence.
    held: dict[str, int] = field(default_factory=dict)

    def acquire(self, at: datetime, resource: str, fence: int) -> None:
        """Note a grant."""
        self.record(ClaimAcquired, at, resource=resource, fence=fence)

    def lose(self, at: datetime, resource: str, taken_by: str) -> None:
        """Note that another holder has the resource now."""
        self.record(ClaimLost, at, resource=resource, taken_by=taken_by)

    def give_up(self, at: datetime, resource: str) -> None:
        """Note a release."""
        self.record(ClaimGivenUp, at, resource=resource)

    def displaced(self, resource: str, taken_by: str) -> None:
        """What losing a resource means to this holder, beyond no longer having it."""
