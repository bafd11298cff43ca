"""Claims and work items as clients see them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from domain import liveness
from domain.aggregate import Json
from domain.claims.claim import Claim
from domain.claims.holder import Holder
from domain.liveness import Serving


def view(
    claim: Claim, holder: Holder | None, now: datetime, stale_seconds: float, serving: Serving
) -> Json:
    """A claim at a moment, with how its holder is. ``holder`` is null once released."""
    told = {} if holder is None else owner(claim, holder, now, stale_seconds, serving)
    kind = claim.holder_kind
    item = claim.item
    return {
        "item_id": claim.resource,
        "title": item.title if item else None,
        "track": item.track if item else None,
        "priority": item.priority if item else 0,
        "status": claim.status,
        "session_id": claim.holder_id if kind == "session" else None,
        "instance_id": claim.holder_id if kind == "instance" else None,
        "fence": claim.fence,
        **_held(claim, told),
        "seconds_until_takeover": told.get("seconds_until_takeover"),
    }


def _held(claim: Claim, told: Json) -> Json:
    """Who has an item, where, and how that one is: the same in a claim and in a work item."""
    return {
        "holder": claim.holder_id,
        "holder_kind": claim.holder_kind,
        "hostname": claim.hostname,
        "tty": claim.tty,
        "codebase": claim.codebase,
        "claimed_at": claim.claimed_at,
        "claim_duration_minutes": told.get("claim_duration_minutes"),
        "heartbeat_age_seconds": told.get("heartbeat_age_seconds"),
        "heartbeat_age_human": told.get("heartbeat_age_human"),
        "stale": told.get("stale", False),
        "unknown_since": told.get("unknown_since"),
    }


def owner(
    claim: Claim, holder: Holder, now: datetime, stale_seconds: float, serving: Serving
) -> Json:
    """The holder as described in the error ``claim_held`` (S3 FR-2, spec 6)."""
    gap = holder.gap_seconds(now)
    silent = claim.silent_seconds(now, holder.silent_seconds(now, serving))
    stale = silent > stale_seconds
    return {
        "item_id": claim.resource,
        "title": claim.item.title if claim.item else None,
        "claimed_by": claim.holder_id,
        "holder_kind": claim.holder_kind,
        "heartbeat_age_seconds": gap,
        "heartbeat_age_human": liveness.human_age(gap),
        "hostname": claim.hostname,
        "tty": claim.tty,
        "codebase": claim.codebase,
        "claimed_at": claim.claimed_at,
        "claim_duration_minutes": liveness.age_seconds(claim.claimed_at or now, now) / 60,
        "fence": claim.fence,
        "stale": stale,
        "unknown_since": None if stale else holder.unheard_since(serving),
        "seconds_until_takeover": max(0.0, stale_seconds - silent),
    }


def item_view(
    claim: Claim,
    now: datetime,
    stale_seconds: float,
    serving: Serving,
    *,
    holder: Holder | None = None,
    blocked_by: Sequence[str] = (),
) -> Json:
    """A work item, with its holder and its dependencies."""
    item = claim.require_listed()
    told = {} if holder is None else owner(claim, holder, now, stale_seconds, serving)
    kind = claim.holder_kind
    return {
        "item_id": claim.resource,
        "title": item.title,
        "track": item.track,
        "priority": item.priority,
        "depends_on": item.depends_on,
        "blocked_by": sorted(blocked_by),
        "status": claim.status,
        "is_working_on": claim.holder_id is not None,
        "active_session_id": claim.holder_id if kind == "session" else None,
        "active_instance_id": claim.holder_id if kind == "instance" else None,
        "fence": claim.fence or None,
        **_held(claim, told),
        "last_machine_id": claim.last_machine_id,
        "completed_at": item.completed_at,
        "completed_by": item.completed_by,
        "open_dependencies": item.open_dependencies,
        "cancelled_at": item.cancelled_at,
        "status_reason": item.status_reason,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }


def lost_item(claim: Claim) -> Json:
    """An item that a successor could not claim again: another holds it or has completed it."""
    return {
        "item_id": claim.resource,
        "status": claim.status,
        "holder": claim.holder_id,
        "holder_kind": claim.holder_kind,
        "fence": claim.fence,
    }
