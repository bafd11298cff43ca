"""Work that people list and claim: an entity inside its claim and its stream (spec 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from domain.aggregate import Event

if TYPE_CHECKING:
    from domain.claim import Claim

WorkItemStatus = Literal["open", "claimed", "completed"]


@dataclass(slots=True, kw_only=True)
class WorkItem:
    """One item as its claim knows it."""

    created_at: datetime
    updated_at: datetime
    title: str | None = None
    track: str | None = None
    # Higher first.
    priority: int = 0
    # Items that must be completed before this one can be claimed.
    depends_on: list[str] = field(default_factory=list)
    completed_at: datetime | None = None
    completed_by: str | None = None

    @property
    def is_completed(self) -> bool:
        """Whether the work is done; nobody can claim it any more."""
        return self.completed_at is not None


class WorkItemEvent(Event):
    """An event about the work itself, in the stream of its claim."""


class WorkItemListed(WorkItemEvent):
    """The item is on the list, described like this; again when the description changed."""

    event_type = "work_item_listed"
    title: str | None = None
    track: str | None = None
    priority: int | None = None
    depends_on: list[str] | None = None

    def change(self, claim: Claim) -> None:
        item = claim.item or WorkItem(created_at=self.timestamp, updated_at=self.timestamp)
        claim.item = item
        item.title, item.track = self.title, self.track
        item.priority, item.depends_on = self.priority or 0, list(self.depends_on or ())


class WorkItemCompleted(WorkItemEvent):
    """The work is done, by whoever held it."""

    event_type = "work_item_completed"
    holder_kind: Literal["session", "instance"]
    completed_by: str

    def change(self, claim: Claim) -> None:
        item = claim.require_listed()
        item.completed_at = self.timestamp
        item.completed_by = self.completed_by


EVENTS: tuple[type[WorkItemEvent], ...] = (WorkItemListed, WorkItemCompleted)
