"""Replies about claims and work items (S3, spec 6)."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from domain.claims.claim import HolderKind
from domain.claims.work_item import WorkItemStatus
from interfaces.replies.base import Page, Time


class _Held(TypedDict):
    """What claims and work items say of the holder; all null while nobody holds the item."""

    holder: str | None
    holder_kind: HolderKind | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    claimed_at: Time | None
    claim_duration_minutes: float | None
    heartbeat_age_seconds: float | None
    heartbeat_age_human: str | None
    # Whether the holder has been silent for so long that the item may be taken over.
    stale: bool
    unknown_since: Time | None


class Claim(_Held):
    """Exclusive ownership of a work item; ``fence`` rises with every new holder."""

    item_id: str
    title: str | None
    track: str | None
    priority: int
    status: WorkItemStatus
    session_id: str | None
    instance_id: str | None
    fence: int
    seconds_until_takeover: float | None


class GrantedClaim(Claim):
    """A claim just made, and from whom the item was taken over if it was."""

    taken_from: NotRequired[str]


class VerifiedClaim(Claim):
    """The claim that is held under the fence that was asked about."""

    valid: bool


class ClaimPage(Page):
    """What is held now, the latest claim first."""

    claims: list[Claim]


class WorkItem(_Held):
    """An item of the work queue, with who works on it."""

    item_id: str
    title: str | None
    track: str | None
    priority: int
    depends_on: list[str]
    # Those of them that are still to be done.
    blocked_by: list[str]
    status: WorkItemStatus
    is_working_on: bool
    active_session_id: str | None
    active_instance_id: str | None
    # The last one given out; null if nobody ever claimed it.
    fence: int | None
    last_machine_id: str | None
    completed_at: Time | None
    completed_by: str | None
    # What it should have waited for when it was completed all the same.
    open_dependencies: list[str]
    cancelled_at: Time | None
    status_reason: str | None
    created_at: Time
    updated_at: Time


class WorkItemPage(Page):
    """The work queue, the highest priority first."""

    work_items: list[WorkItem]
