"""Exclusive ownership of a named resource: at most one holder, guaranteed by the claim's stream.

Most resources are work items; the item's description and status are in the same stream. A session's
place on a machine, a docker slot and the role of the only global instance are claims too; their
names begin with ``@``, so they cannot clash with a work item's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

from domain import identity, liveness
from domain.aggregate import Aggregate, Event
from domain.claims.work_item import (
    SETTLED,
    WorkItem,
    WorkItemCancelled,
    WorkItemCompleted,
    WorkItemListed,
    WorkItemRemoved,
    WorkItemReopened,
    WorkItemStatus,
)
from domain.errors import (
    ClaimNotFound,
    DependencyCycle,
    InvalidTransition,
    ItemCancelled,
    ItemCompleted,
    StaleFence,
    WorkItemNotFound,
)

HolderKind = Literal["session", "instance"]

# Being the one live global instance (spec 4).
GLOBAL = "@global"


def place(project_id: str, machine_id: str, docker_slot: int | None) -> str:
    """The resource that one active session of a project holds on a machine (spec 7).

    Different spellings of the project's name give the same resource.
    """
    slot = "" if docker_slot is None else str(docker_slot)
    return f"@place/{identity.slug(project_id)}/{_escaped(machine_id)}/{slot}"


def slot(machine_id: str, docker_slot: int) -> str:
    """The resource for a docker slot, which all projects share."""
    return f"@slot/{_escaped(machine_id)}/{docker_slot}"


def is_work_item(resource: str) -> bool:
    """Whether the resource is a work item, not a place or a slot."""
    return not resource.startswith("@")


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F")


class ClaimEvent(Event):
    """A claim's event. Its sequence number is the fence of the grant that it records."""


class ClaimGranted(ClaimEvent):
    """A free resource has a holder."""

    event_type = "claim_granted"
    holder_kind: HolderKind
    holder_id: str
    # Where the holder works on the item, for the error of whoever is refused (S3 FR-2).
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None
    machine_id: str | None = None

    def change(self, claim: Claim) -> None:
        claim.holder_kind, claim.holder_id = self.holder_kind, self.holder_id
        claim.fence, claim.claimed_at = self.originator_version, self.timestamp
        claim.hostname, claim.tty, claim.codebase = self.hostname, self.tty, self.codebase
        claim.last_machine_id = self.machine_id or claim.last_machine_id


class ClaimTakenOver(ClaimGranted):
    """The resource passed from one holder to the next without being free in between."""

    event_type = "claim_taken_over"
    taken_from: str = field(kw_only=True)


class ClaimReleased(ClaimEvent):
    """The resource is free."""

    event_type = "claim_released"
    holder_id: str

    def change(self, claim: Claim) -> None:
        claim.holder_kind = claim.holder_id = claim.claimed_at = None
        claim.hostname = claim.tty = claim.codebase = None


EVENTS: tuple[type[ClaimEvent], ...] = (ClaimGranted, ClaimTakenOver, ClaimReleased)


@dataclass(slots=True, kw_only=True)
class Claim(Aggregate):
    """Who holds one resource, and under which fence."""

    category: ClassVar[str] = "claim"

    holder_kind: HolderKind | None = None
    holder_id: str | None = None
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None
    fence: int = 0
    claimed_at: datetime | None = None
    # Where the item was last worked on; kept when the claim is released.
    last_machine_id: str | None = None
    item: WorkItem | None = None
    # Whether an item with this name was removed.
    is_removed: bool = False

    # Queries

    @property
    def resource(self) -> str:
        """The name of the claimed resource."""
        return self.key

    @property
    def status(self) -> WorkItemStatus | Literal["removed"]:
        """The status of the work item; ``removed`` until it is listed again."""
        if self.is_removed:
            return "removed"
        if self.item is not None and self.item.is_over:
            return "completed" if self.item.is_completed else "cancelled"
        return "open" if self.holder_id is None else "claimed"

    @property
    def is_settled(self) -> bool:
        """Whether the work item blocks no other: it is completed, cancelled or removed."""
        return self.status in SETTLED

    def silent_seconds(self, at: datetime, holder_silent: float) -> float:
        """Seconds of the holder's silence since it was granted the claim.

        Silence from before the grant does not count (spec 6).
        """
        return min(holder_silent, liveness.age_seconds(self.claimed_at or at, at))

    def may_pass_on(
        self, at: datetime, holder_silent: float, stale_seconds: float, *, takeover: bool
    ) -> bool:
        """Whether a live holder may lose the claim: takeover was asked for, and it was silent."""
        return takeover and self.silent_seconds(at, holder_silent) > stale_seconds

    # Preconditions

    def require_claimed_once(self) -> None:
        """Raise :class:`ClaimNotFound` for a work item that was never claimed.

        Also for places and slots, which clients cannot ask about (spec 7).
        """
        if self.fence == 0 or not is_work_item(self.resource):
            raise ClaimNotFound.named(self.resource)

    def require_fence(self, fence: int) -> None:
        """Raise :class:`StaleFence` unless the claim is held under this fence."""
        if self.holder_id is None or self.fence != fence:
            raise StaleFence(
                details={
                    "item_id": self.resource,
                    "given_fence": fence,
                    "fence": self.fence or None,
                    "holder": self.holder_id,
                    "holder_kind": self.holder_kind,
                }
            )

    def require_listed(self) -> WorkItem:
        """The work item. Raises :class:`WorkItemNotFound`."""
        if self.item is None:
            raise WorkItemNotFound.named(self.resource)
        return self.item

    def require_open(self) -> None:
        """Raise :class:`ItemCompleted` or :class:`ItemCancelled` if the work item is not open."""
        if self.status == "cancelled" and self.item is not None:
            raise ItemCancelled(
                details={
                    "item_id": self.resource,
                    "cancelled_at": self.item.cancelled_at,
                    "reason": self.item.status_reason,
                }
            )
        if self.item is not None and self.item.is_completed:
            raise ItemCompleted(
                details={
                    "item_id": self.resource,
                    "completed_by": self.item.completed_by,
                    "completed_at": self.item.completed_at,
                }
            )

    # For the events

    def touched(self, event: Event) -> None:
        """Every event of the claim sets the item's ``updated_at``."""
        if self.item is not None:
            self.item.updated_at = event.timestamp

    # Changes

    def grant(
        self,
        at: datetime,
        holder_kind: HolderKind,
        holder_id: str,
        *,
        hostname: str | None = None,
        tty: str | None = None,
        codebase: str | None = None,
        machine_id: str | None = None,
    ) -> int:
        """Give the resource to a holder, taking it from the current one; return the new fence."""
        owner: dict[str, str | None] = {
            "holder_kind": holder_kind,
            "holder_id": holder_id,
            "hostname": hostname,
            "tty": tty,
            "codebase": codebase,
            "machine_id": machine_id,
        }
        if self.holder_id is None:
            self.record(ClaimGranted, at, **owner)
        else:
            self.record(ClaimTakenOver, at, **owner, taken_from=self.holder_id)
        return self.fence

    def release(self, at: datetime, holder_id: str) -> None:
        """Release the resource if this holder has it; another holder's claim is left alone."""
        if self.holder_id == holder_id:
            self.record(ClaimReleased, at, holder_id=holder_id)

    def list_item(
        self,
        at: datetime,
        *,
        title: str | None = None,
        track: str | None = None,
        priority: int = 0,
        depends_on: Sequence[str] = (),
    ) -> None:
        """Add the item to the queue, or change its description; repeating it changes nothing.

        Raises :class:`DependencyCycle` for an item that depends on itself; the caller checks for
        longer cycles.
        """
        if self.resource in depends_on:
            raise DependencyCycle.of("depends_on", "an item cannot wait for itself")
        described = (title, track, priority, list(depends_on))
        known = self.item
        if known and described == (known.title, known.track, known.priority, known.depends_on):
            return
        self.record(
            WorkItemListed,
            at,
            title=title,
            track=track,
            priority=priority or None,
            depends_on=list(depends_on) or None,
        )

    def complete(self, at: datetime, open_dependencies: Sequence[str] = ()) -> None:
        """Complete the item, which releases the claim."""
        assert self.holder_id is not None
        self.record(
            WorkItemCompleted,
            at,
            holder_kind=self.holder_kind,
            completed_by=self.holder_id,
            open_dependencies=list(open_dependencies) or None,
        )
        self.release(at, self.holder_id)

    def reopen(self, at: datetime, reason: str) -> None:
        """Reopen a completed or cancelled item. Raises :class:`InvalidTransition`."""
        item = self.require_listed()
        if not item.is_over:
            raise InvalidTransition(
                f"{self.resource} is {self.status}; only what is completed or cancelled can be"
                " reopened.",
                details={"item_id": self.resource, "from": self.status, "to": "open"},
            )
        self.record(WorkItemReopened, at, reason=reason)

    def cancel(self, at: datetime, reason: str | None = None) -> None:
        """Cancel the item, which releases the claim; repeating it changes nothing."""
        if self.require_listed().cancelled_at is not None:
            return
        self.require_open()
        self.record(WorkItemCancelled, at, reason=reason)
        if self.holder_id is not None:
            self.release(at, self.holder_id)

    def remove(self, at: datetime) -> None:
        """Remove the item. The caller has checked that nobody holds it."""
        self.require_listed()
        assert self.holder_id is None
        self.record(WorkItemRemoved, at)
