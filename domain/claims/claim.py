"""Exclusive ownership of a named resource: at most one holder, proved by the claim's own stream.

What is claimed is mostly a work item, whose description and end are in the same stream. A
session's place on a machine, a docker slot and being the one global instance are claims too; their
names begin with ``@``, so they never meet that of a work item.
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

    However the project's name is written: it is one project.
    """
    slot = "" if docker_slot is None else str(docker_slot)
    return f"@place/{identity.slug(project_id)}/{_escaped(machine_id)}/{slot}"


def slot(machine_id: str, docker_slot: int) -> str:
    """The resource that stands for a docker slot, whichever project asks for it."""
    return f"@slot/{_escaped(machine_id)}/{docker_slot}"


def is_work_item(resource: str) -> bool:
    """Whether the resource is work that people list, and not a place or a slot."""
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
    # Where the holder of a work item is at it, for whoever is refused (S3 FR-2).
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
    # Where the item was last worked on; it stays when the claim is released.
    last_machine_id: str | None = None
    item: WorkItem | None = None
    # Whether there was an item of this name, which was removed.
    is_removed: bool = False

    # What is so

    @property
    def resource(self) -> str:
        """The name of what is claimed."""
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
        """Whether nothing has to wait for the work item any more."""
        return self.status in SETTLED

    def silent_seconds(self, at: datetime, holder_silent: float) -> float:
        """For how long nothing was heard of the holder since it has the claim.

        A new claim never inherits the silence from before it (spec 6).
        """
        return min(holder_silent, liveness.age_seconds(self.claimed_at or at, at))

    def may_pass_on(
        self, at: datetime, holder_silent: float, stale_seconds: float, *, takeover: bool
    ) -> bool:
        """Whether a holder that lives may lose the claim: it is asked for, and has been silent."""
        return takeover and self.silent_seconds(at, holder_silent) > stale_seconds

    # What must be so

    def require_claimed_once(self) -> None:
        """Raise :class:`ClaimNotFound` for a work item that nobody ever claimed.

        Places and slots are for nobody to ask about: who works there holds them (spec 7).
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
        """Raise :class:`ItemCompleted` once it is done, :class:`ItemCancelled` if it won't be."""
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

    # Used by the events

    def touched(self, event: Event) -> None:
        """Everything that happens to the claim refreshes the item's ``updated_at``."""
        if self.item is not None:
            self.item.updated_at = event.timestamp

    # Verbs

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
        """Give the resource to a holder, from whoever has it now; the new fence."""
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
        """Free the resource if this holder has it; a later holder's claim is left alone."""
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
        """Put the work on the list, or change its description; the same again changes nothing.

        Raises :class:`DependencyCycle` for an item that waits for itself; longer circles take
        knowing the other items.
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
        """The holder is done with the item, which is then free of it."""
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
        """Have a completed or cancelled item done again. Raises :class:`InvalidTransition`."""
        item = self.require_listed()
        if not item.is_over:
            raise InvalidTransition(
                f"{self.resource} is {self.status}; only what is completed or cancelled can be"
                " reopened.",
                details={"item_id": self.resource, "from": self.status, "to": "open"},
            )
        self.record(WorkItemReopened, at, reason=reason)

    def cancel(self, at: datetime, reason: str | None = None) -> None:
        """Have it not done, and free of its holder; again changes nothing."""
        if self.require_listed().cancelled_at is not None:
            return
        self.require_open()
        self.record(WorkItemCancelled, at, reason=reason)
        if self.holder_id is not None:
            self.release(at, self.holder_id)

    def remove(self, at: datetime) -> None:
        """Put the item's tombstone. Nobody may hold it."""
        self.require_listed()
        assert self.holder_id is None
        self.record(WorkItemRemoved, at)
