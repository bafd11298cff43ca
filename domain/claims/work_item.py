"""Work that people list and claim: an entity inside its claim and its stream (spec 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from domain.aggregate import Event

if TYPE_CHECKING:
    from domain.claims.claim import Claim

WorkItemStatus = Literal["open", "claimed", "completed", "cancelled"]
# What no longer holds up what waits for it.
SETTLED = frozenset({"completed", "cancelled", "removed"})


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
    # What it was to wait for and was not done when it was completed: that came while it was held.
    open_dependencies: list[str] = field(default_factory=list)
    cancelled_at: datetime | None = None
    # Why it was cancelled, or reopened.
    status_reason: str | None = None

    @property
    def is_completed(self) -> bool:
        """Whether the work is done; nobody can claim it any more."""
        return self.completed_at is not None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.is_completed or self.cancelled_at is not None


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
        claim.item, claim.is_removed = item, False
        item.title, item.track = self.title, self.track
        item.priority, item.depends_on = self.priority or 0, list(self.depends_on or ())


class WorkItemCompleted(WorkItemEvent):
    """The work is done, by whoever held it."""

    event_type = "work_item_completed"
    holder_kind: Literal["session", "instance"]
    completed_by: str
    open_dependencies: list[str] | None = None

    def change(self, claim: Claim) -> None:
        item = claim.require_listed()
        item.completed_at = self.timestamp
        item.completed_by = self.completed_by
        item.open_dependencies = self.open_dependencies or []


class WorkItemReopened(WorkItemEvent):
    """A completed or cancelled item is to be done again."""

    event_type = "work_item_reopened"
    reason: str

    def change(self, claim: Claim) -> None:
        item = claim.require_listed()
        item.completed_at = item.completed_by = item.cancelled_at = None
        item.open_dependencies = []
        item.status_reason = self.reason


class WorkItemCancelled(WorkItemEvent):
    """The item was cancelled; items that depend on it no longer wait."""

    event_type = "work_item_cancelled"
    reason: str | None = None

    def change(self, claim: Claim) -> None:
        item = claim.require_listed()
        item.cancelled_at, item.status_reason = self.timestamp, self.reason


class WorkItemRemoved(WorkItemEvent):
    """The item was removed (a tombstone); listed again, it is a new item."""

    event_type = "work_item_removed"

    def change(self, claim: Claim) -> None:
        claim.item, claim.is_removed = None, True
        # A fence is an event's number: the next one is higher all the same.
        claim.fence, claim.last_machine_id = 0, None


EVENTS: tuple[type[WorkItemEvent], ...] = (
    WorkItemListed,
    WorkItemCompleted,
    WorkItemReopened,
    WorkItemCancelled,
    WorkItemRemoved,
)
