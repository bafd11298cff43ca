"""The base of what can hold claims, and the events in its own stream about them (spec 6)."""

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
    """An event in a holder's stream about a claim; the claim's stream has its counterpart."""

    resource: str


class ClaimAcquired(HolderEvent):
    """The holder was granted a resource, under this fence."""

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
    """A work item that the holder held was cancelled; its next heartbeat is told."""

    event_type = "claim_cancelled"

    def change(self, holder: Holder) -> None:
        fence = holder.held.pop(self.resource, None)
        lost = {"item_id": self.resource, "fence": fence, "taken_by": None, "reason": "cancelled"}
        holder.note_lost({**lost, "at": iso(self.timestamp)})


class ClaimGivenUp(HolderEvent):
    """The holder released a resource."""

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
    """An aggregate that can hold claims: a session or an instance."""

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
        """The machine that it runs on, if known."""
        return self.hostname

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, so that others may take what it holds."""
        raise NotImplementedError

    def gap_seconds(self, at: datetime) -> float:
        """Seconds since the last heartbeat."""
        return liveness.age_seconds(self.last_heartbeat or at, at)

    def silent_seconds(self, at: datetime, serving: Serving = ALWAYS) -> float:
        """Seconds of silence, counting only while the service was reachable (spec 5)."""
        return liveness.silent_seconds(self.last_heartbeat or at, at, serving)

    def unheard_since(self, serving: Serving) -> datetime | None:
        """When an outage of the service after the last heartbeat began; None if there was none."""
        if self.last_heartbeat is None:
            return None
        return liveness.unknown_since(self.last_heartbeat, serving)

    def require_writable(self) -> None:
        """Raise unless it is known and has not ended."""
        raise NotImplementedError

    def acquire(self, at: datetime, resource: str, fence: int) -> None:
        """Record a grant."""
        self.record(ClaimAcquired, at, resource=resource, fence=fence)

    def lose(self, at: datetime, resource: str, taken_by: str) -> None:
        """Record that another holder took the resource."""
        self.record(ClaimLost, at, resource=resource, taken_by=taken_by)

    def lose_cancelled(self, at: datetime, resource: str) -> None:
        """Record that the work item was cancelled; the reply to the next heartbeat has it."""
        self.record(ClaimCancelled, at, resource=resource)

    def give_up(self, at: datetime, resource: str) -> None:
        """Record a release."""
        self.record(ClaimGivenUp, at, resource=resource)

    def note_lost(self, lost: Json) -> None:
        """For the events: keep a loss for the next heartbeat's reply; only the latest are kept."""
        # A new list: the reply to a heartbeat may have the one before.
        self.lost_claims = [*self.lost_claims, lost][-MOST_LOST:]

    def displaced(self, resource: str, taken_by: str) -> None:
        """What losing a resource means to this holder, beyond no longer having it."""

    def gave_up(self, resource: str) -> None:
        """What letting go of a resource means to this holder, beyond no longer having it."""
