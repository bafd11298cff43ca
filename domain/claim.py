"""Exclusive ownership of a named resource: at most one holder, proved by the claim's own stream.

A session's place on a machine and a docker slot are claims whose resource names begin with ``@``,
so they never meet the name of a work item.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from domain.aggregate import Aggregate, Event

HolderKind = Literal["session", "instance"]

# Being the one live global instance (spec 4).
GLOBAL = "@global"


def place(project_id: str, machine_id: str, docker_slot: int | None) -> str:
    """The resource that one active session of a project holds on a machine (spec 7)."""
    slot = "" if docker_slot is None else str(docker_slot)
    return f"@place/{_escaped(project_id)}/{_escaped(machine_id)}/{slot}"


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

    def change(self, claim: Claim) -> None:
        claim.holder_kind, claim.holder_id = self.holder_kind, self.holder_id
        claim.fence, claim.claimed_at = self.originator_version, self.timestamp


class ClaimTakenOver(ClaimGranted):
    """The resource passed from one holder to the next without being free in between."""

    event_type = "claim_taken_over"
    taken_from: str


class ClaimReleased(ClaimEvent):
    """The resource is free."""

    event_type = "claim_released"
    holder_id: str

    def change(self, claim: Claim) -> None:
        claim.holder_kind = claim.holder_id = claim.claimed_at = None


EVENTS: tuple[type[ClaimEvent], ...] = (ClaimGranted, ClaimTakenOver, ClaimReleased)


@dataclass(slots=True, kw_only=True)
class Claim(Aggregate):
    """Who holds one resource, and under which fence."""

    category: ClassVar[str] = "claim"

    holder_kind: HolderKind | None = None
    holder_id: str | None = None
    fence: int = 0
    claimed_at: datetime | None = None

    @property
    def resource(self) -> str:
        """The name of what is claimed."""
        return self.key

    def grant(self, at: datetime, holder_kind: HolderKind, holder_id: str) -> int:
        """Give the resource to a holder, from whoever has it now; the new fence."""
        if self.holder_id is None:
            self.record(ClaimGranted, at, holder_kind=holder_kind, holder_id=holder_id)
        else:
            self.record(
                ClaimTakenOver,
                at,
                holder_kind=holder_kind,
                holder_id=holder_id,
                taken_from=self.holder_id,
            )
        return self.fence

    def release(self, at: datetime, holder_id: str) -> None:
        """Free the resource if this holder has it; a later holder's claim is left alone."""
        if self.holder_id == holder_id:
            self.record(ClaimReleased, at, holder_id=holder_id)
