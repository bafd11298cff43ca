"""The operations on claims and work items (S3, spec 6)."""

from __future__ import annotations

from collections.abc import Mapping

from application import claims as claim_commands
from application import work_items as item_commands
from application.engine.fields import Sought
from domain.aggregate import Json
from domain.claims.work_item import WorkItemStatus
from domain.errors import InvalidInput
from interfaces.operations.base import (
    Listing,
    Operation,
    Params,
    Services,
    Tool,
    command,
    query,
    unless_lagging,
)
from interfaces.replies import claims as replies
from projections import work_items

# How many candidates a claimer tries at once; if others claim them all first, it gets more.
CANDIDATES = 20


class OneItem(Params):
    """The work item in the path."""

    item_id: Sought


class ClaimList(Listing):
    """Whose claims to list."""

    session_id: Sought | None = None
    instance_id: Sought | None = None


class ItemList(Listing):
    """Which work items to list."""

    status: WorkItemStatus | None = None
    track: Sought | None = None


async def _claims(s: Services, namespace: str, p: ClaimList) -> Json:
    """List claims that are held now, the latest first."""
    if p.session_id is not None and p.instance_id is not None:
        raise InvalidInput.of("instance_id", "ask for the claims of one holder, not of two")
    return await work_items.claims(s.reads, namespace, p.page, holder=p.session_id or p.instance_id)


async def _claim(s: Services, namespace: str, p: OneItem) -> Json:
    """Get a work item's claim: who holds it, or held it last."""
    return await work_items.claim(s.reads, namespace, p.item_id)


async def _items(s: Services, namespace: str, p: ItemList) -> Json:
    """List the work queue, highest priority first, with the holder of each item."""
    return await work_items.listed(s.reads, namespace, p.page, status=p.status, track=p.track)


async def _item(s: Services, namespace: str, p: OneItem) -> Json:
    """Get one work item with its holder."""
    return await work_items.get(s.reads, namespace, p.item_id)


async def _candidates(
    s: Services, namespace: str, found_for: item_commands.ClaimNext
) -> Mapping[str, object]:
    # There may be work in events that are not projected yet.
    found = await unless_lagging(
        work_items.claimable(
            s.reads,
            namespace,
            CANDIDATES,
            session_id=found_for.session_id,
            instance_id=found_for.instance_id,
            hostname=found_for.hostname,
            track=found_for.track,
            takeover=found_for.takeover,
            besides=found_for.refused,
        ),
        "whether there is work",
    )
    return {"candidates": found}


async def _behind_named(
    s: Services, namespace: str, found_for: item_commands.ListItem
) -> Mapping[str, object]:
    if not found_for.depends_on:
        return {}
    limit = item_commands.MAX_BEHIND + len(found_for.depends_on)
    return {"behind": await work_items.behind(s.reads, namespace, limit, found_for.depends_on)}


async def _behind_item(
    s: Services, namespace: str, found_for: item_commands.ReopenItem
) -> Mapping[str, object]:
    item_id, limit = found_for.item_id, item_commands.MAX_BEHIND
    return {"behind": await work_items.behind(s.reads, namespace, limit, (), item_id)}


_CLAIM = "/api/claims/{item_id:path}"
_ITEM = "/api/work-items/{item_id:path}"

ROWS: tuple[Operation, ...] = (
    command(
        "claim_item",
        "POST",
        "/api/claims",
        claim_commands.ClaimItem,
        201,
        reply=replies.GrantedClaim,
        tool=Tool(
            "mcp_meta_claim_work_item",
            "Claim before you start on something that others might do too, and keep the fence from"
            " the reply. The error claim_held tells who holds the item; with takeover true you get"
            " it once that holder has been silent long enough (seconds_until_takeover is 0).",
        ),
    ),
    query("claim_list", "/api/claims", ClaimList, _claims, reply=replies.ClaimPage),
    command(
        "claim_release",
        "POST",
        f"{_CLAIM}/release",
        claim_commands.ReleaseClaim,
        reply=replies.Claim,
        tool=Tool(
            "mcp_meta_release_work_item",
            "Use it when you stop work on an item that is not finished.",
        ),
    ),
    command(
        "claim_verify",
        "POST",
        f"{_CLAIM}/verify",
        claim_commands.VerifyFence,
        scope="read",
        reply=replies.VerifiedClaim,
    ),
    query("claim_get", _CLAIM, OneItem, _claim, reply=replies.Claim),
    command(
        "work_item_list",
        "POST",
        "/api/work-items",
        item_commands.ListItem,
        201,
        prepare=_behind_named,
        reply=replies.WorkItem,
    ),
    query("work_item_queue", "/api/work-items", ItemList, _items, reply=replies.WorkItemPage),
    command(
        "work_item_claim_next",
        "POST",
        "/api/work-items/claim-next",
        item_commands.ClaimNext,
        201,
        prepare=_candidates,
        may_be_empty=True,
        reply=replies.GrantedClaim,
        tool=Tool(
            "mcp_meta_next_work_item",
            "You never get an item that another is working on. An empty reply means that there is"
            " nothing to do. With takeover true you may also get an item whose holder has gone"
            " silent.",
        ),
    ),
    command(
        "work_item_complete",
        "POST",
        f"{_ITEM}/complete",
        item_commands.CompleteItem,
        reply=replies.WorkItem,
        tool=Tool(
            "mcp_meta_complete_work_item",
            "Call it as the session or instance that holds the item; items that depend on it can"
            " then start. open_dependencies in the reply lists those of its own dependencies that"
            " are not completed.",
        ),
    ),
    command(
        "work_item_reopen",
        "POST",
        f"{_ITEM}/reopen",
        item_commands.ReopenItem,
        prepare=_behind_item,
        reply=replies.WorkItem,
    ),
    command(
        "work_item_cancel",
        "POST",
        f"{_ITEM}/cancel",
        item_commands.CancelItem,
        reply=replies.WorkItem,
    ),
    command("work_item_remove", "DELETE", _ITEM, item_commands.RemoveItem, 204),
    query("work_item_get", _ITEM, OneItem, _item, reply=replies.WorkItem),
)
