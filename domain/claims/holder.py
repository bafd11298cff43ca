"""What may hold claims, and how it notes on its own stream what it holds (spec 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain import liveness
from domain.aggregate import Event, Json, iso
from domain.claims.claim import is_work_item
from domain.liveness import ALWAYS, Serving
from domain.supervision import Supervision

# So many losses one who does not beat is told of, when it does: the latest ones.
MOST_LOST = 1_000


class HolderEvent(Event):
    """An event of a holder's stream about a claim, whose own stream has the other half."""

    resource: str


class ClaimAcquired(HolderEvent):
    """The holder has a resource, under this fence."""

    event_type = "claim_acquired"
    fence: int

    def change(self, holder: Holder) -> None:
        holder.held[self.resource] = self.fence
        if is_work_item(self.resource):
            holder.lost_last_item = False


class ClaimLost(HolderEvent):
    """Another holder took the resource over."""

    event_type = "claim_lost"
    taken_by: str

    def change(self, holder: Holder) -> None:
        fence = holder.held.pop(self.resource, None)
        holder.displaced(self.resource, self.taken_by)
        if is_work_item(self.resource):
            lost = {"item_id": self.resource, "fence": fence, "taken_by": self.taken_by}
            holder.note_lost({**lost, "at": iso(self.timestamp)})
            holder.lost_last_item = not any(map(is_work_item, holder.held))


class ClaimCancelled(HolderEvent):
    """The work item that the holder had was cancelled; its next heartbeat tells it."""

    event_type = "claim_cancelled"

    def change(self, holder: Holder) -> None:
        fence = holder.held.pop(self.resource, None)
        lost = {"item_id": self.resource, "fence": fence, "taken_by": None, "reason": "cancelled"}
        holder.note_lost({**lost, "at": iso(self.timestamp)})


class ClaimGivenUp(HolderEvent):
    """The holder let go of a resource."""

    event_type = "claim_given_up"

    def change(self, holder: Holder) -> None:
        holder.held.pop(self.resource, None)
        holder.gave_up(self.resource)


EVENTS: tuple[type[HolderEvent], ...] = (
    ClaimAcquired,
    ClaimLost,
    ClaimCancelled,
    ClaimGivenUp,
)


@dataclass(slots=True, kw_only=True)
class Holder(Supervision):
    """An aggregate that claims name as their holder."""

    # Resource to fence.
    held: dict[str, int] = field(default_factory=dict)
    # What was taken over since the last heartbeat, which tells the holder (spec 17).
    lost_claims: list[Json] = field(default_factory=list)

    last_heartbeat: datetime | None = None
    # Whether another took over the last item that it had.
    lost_last_item: bool = False

    # Where it works, for whoever wants to know who has a claim.
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None

    @property
    def machine(self) -> str | None:
        """The machine that it runs on, as far as it said so."""
        return self.hostname

    @property
    def has_ended(self) -> bool:
        """Whether what it holds is anyone's."""
        raise NotImplementedError

    def gap_seconds(self, at: datetime) -> float:
        """Seconds since the last sign of life."""
        return liveness.age_seconds(self.last_heartbeat or at, at)

    def silent_seconds(self, at: datetime, serving: Serving = ALWAYS) -> float:
        """Of these seconds the latest, in which a sign of life would have been heard (spec 5)."""
        return liveness.silent_seconds(self.last_heartbeat or at, at, serving)

    def unheard_since(self, serving: Serving) -> datetime | None:
        """Since when nothing could be heard of it; None if the service was there all the time."""
        if self.last_heartbeat is None:
            return None
        return liveness.unknown_since(self.last_heartbeat, serving)

    def require_writable(self) -> None:
        """Raise unless it may still act: it is known and has not ended."""
        raise NotImplementedError

    def acquire(self, at: datetime, resource: str, fence: int) -> None:
        """Note a grant."""
        self.record(ClaimAcquired, at, resource=resource, fence=fence)

    def lose(self, at: datetime, resource: str, taken_by: str) -> None:
        """Note that another holder has the resource now."""
        self.record(ClaimLost, at, resource=resource, taken_by=taken_by)

    def lose_cancelled(self, at: datetime, resource: str) -> None:
        """Note that the work item was cancelled, which the next heartbeat tells."""
        self.record(ClaimCancelled, at, resource=resource)

    def give_up(self, at: datetime, resource: str) -> None:
        """Note a release."""
        self.record(ClaimGivenUp, at, resource=resource)

    def note_lost(self, lost: Json) -> None:
        """Keep a loss for the next heartbeat, which tells the latest of them."""
        # A new list: the reply to a heartbeat may have the one before.
        self.lost_claims = [*self.lost_claims, lost][-MOST_LOST:]

    def displaced(self, resource: str, taken_by: str) -> None:
        """What losing a resource means to this holder, beyond no longer having it."""

    def gave_up(self, resource: str) -> None:
        """What letting go of a resource means to this holder, beyond no longer having it."""
