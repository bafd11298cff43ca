"""The commands on work items and on their queue (spec 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, StrictBool

from application.claim_view import item_view, owner
from application.claims import (
    Claiming,
    ForHolder,
    claimer_of,
    obstacle_to,
    open_dependencies,
    require_held_by,
    take,
)
from application.engine.fields import (
    Command,
    Dated,
    FenceNumber,
    Found,
    GivenItemId,
    Integer,
    ItemId,
    Label,
    Name,
    Sought,
    Text,
)
from application.engine.unit_of_work import Handler, Outdated, Reply, UnitOfWork
from application.holdings import holder_of, prepare_holders
from domain.aggregate import Json
from domain.claims.claim import Claim
from domain.claims.work_item import WorkItem
from domain.errors import ClaimHeld, DependencyCycle, InvalidInput

# How many dependencies an item may name, and how many of them may be open.
MAX_NAMED = 1_000
MAX_DEPENDENCIES = 100
# How many open items behind an item a check for cycles reads.
MAX_BEHIND = 5_000
# Of a longer cycle an error shows only the two ends.
SHOWN_OF_A_CIRCLE = 20
_DESCRIPTION = frozenset({"title", "track", "priority", "depends_on"})


class ListItem(Command):
    """Add a work item to the queue, or change its description; omitted fields stay as they are."""

    item_id: GivenItemId
    title: Name | None = None
    track: Label | None = None
    priority: Annotated[Integer, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    depends_on: Annotated[list[ItemId], Field(max_length=MAX_NAMED)] | None = None
    # The dependencies behind the named ones, as the read models know them, in one query.
    behind: Found[Sequence[str]] = ()


class CompleteItem(ForHolder, Dated):
    """Complete a work item as its holder, which releases the claim."""

    item_id: Sought
    fence: FenceNumber | None = None


class ReopenItem(Command):
    """Reopen a completed or cancelled work item, giving a reason."""

    item_id: Sought
    reason: Text
    behind: Found[Sequence[str]] = ()


class CancelItem(ForHolder):
    """Cancel a work item: its claim is released, and items that depend on it no longer wait."""

    item_id: Sought
    reason: Text | None = None
    fence: FenceNumber | None = None


class RemoveItem(Command):
    """Remove a work item that nobody holds; if it is added again, it is a new item."""

    item_id: Sought


class ClaimNext(Claiming):
    """Claim the open work item of highest priority whose dependencies are completed.

    With ``takeover``, items whose holder has been silent long enough can be claimed too.
    """

    track: Label | None = None
    takeover: StrictBool = False
    candidates: Found[Sequence[str]] = ()
    # Candidates that were refused before: what is found next is none of them.
    refused: Found[frozenset[str]] = frozenset()


def list_item(work: UnitOfWork, command: ListItem) -> Reply:
    """201 with the item if it is new, else 200."""
    claim = work.load(Claim, command.item_id)
    holder = holder_of(work, claim)
    is_new = claim.item is None
    description = _description(claim.item, command)
    known = claim.item.depends_on if claim.item else ()
    added = [item_id for item_id in description["depends_on"] if item_id not in known]
    work.prepare(*((Claim, item_id) for item_id in (*command.behind, *description["depends_on"])))
    _require_no_circle(work, command.item_id, added)
    if added:
        _require_few(work, description["depends_on"])
    claim.list_item(work.now, **description)
    value = item_view(
        claim,
        work.now,
        work.policy.claim_stale_seconds,
        work.serving,
        holder=holder,
        blocked_by=open_dependencies(work, claim),
    )
    return Reply(value, 201 if is_new else 200)


def complete(work: UnitOfWork, command: CompleteItem) -> Reply:
    """The completed item, now without a holder.

    Dependencies that were added while it was held do not prevent this; the open ones are listed
    in ``open_dependencies``.
    """
    claim = work.load(Claim, command.item_id)
    claimer = claimer_of(work, command)
    waits_for = open_dependencies(work, claim)
    claim.require_listed()
    claimer.require_writable()
    claim.require_open()
    require_held_by(work, claim, claimer, command.fence)
    claim.complete(work.now, waits_for)
    claimer.give_up(work.now, claim.resource)
    return Reply(item_view(claim, work.now, work.policy.claim_stale_seconds, work.serving))


def reopen(work: UnitOfWork, command: ReopenItem) -> Reply:
    """The item, open again. Raises :class:`DependencyCycle` if it would depend on itself."""
    claim = work.load(Claim, command.item_id)
    waits_for = claim.require_listed().depends_on
    work.prepare(*((Claim, item_id) for item_id in (*command.behind, *waits_for)))
    _require_no_circle(work, command.item_id, waits_for)
    claim.reopen(work.now, command.reason)
    return _item(work, claim)


def cancel(work: UnitOfWork, command: CancelItem) -> Reply:
    """The cancelled item. Its holder, if it had one, learns of it from its next heartbeat.

    If the command names a holder, the item must be held by it, under the fence that is given.
    """
    claim = work.load(Claim, command.item_id)
    holder = holder_of(work, claim)
    claim.require_listed()
    if command.session_id is not None or command.instance_id is not None:
        claimer = claimer_of(work, command)
        claimer.require_writable()
        claim.require_open()
        require_held_by(work, claim, claimer, command.fence)
        claim.cancel(work.now, command.reason)
        claimer.give_up(work.now, claim.resource)
        return _item(work, claim)
    if command.fence is not None:
        claim.require_fence(command.fence)
    claim.cancel(work.now, command.reason)
    if holder is not None:
        holder.lose_cancelled(work.now, claim.resource)
    return _item(work, claim)


def remove(work: UnitOfWork, command: RemoveItem) -> Reply:
    """204. Raises :class:`ClaimHeld` while anybody holds it."""
    claim = work.load(Claim, command.item_id)
    holder = holder_of(work, claim)
    claim.require_listed()
    if holder is not None:
        raise ClaimHeld(
            f"{claim.resource} is claimed by {claim.holder_kind} {claim.holder_id}; it can be"
            " removed once it is released, completed or cancelled.",
            details=owner(claim, holder, work.now, work.policy.claim_stale_seconds, work.serving),
        )
    claim.remove(work.now)
    return Reply({}, 204)


def _item(work: UnitOfWork, claim: Claim) -> Reply:
    waits_for = open_dependencies(work, claim)
    stale_seconds = work.policy.claim_stale_seconds
    return Reply(item_view(claim, work.now, stale_seconds, work.serving, blocked_by=waits_for))


def claim_next(work: UnitOfWork, command: ClaimNext) -> Reply:
    """201 with the claim, 204 when there is nothing to claim.

    The candidates come from a read model, the best first; each item's own stream decides.
    Raises :class:`Outdated` if none of them can be claimed: there may be other candidates.
    """
    claimer = claimer_of(work, command)
    claimer.require_writable()
    work.prepare(*((Claim, item_id) for item_id in command.candidates))
    claims = [work.load(Claim, item_id) for item_id in command.candidates]
    prepare_holders(work, *claims)
    for claim in claims:
        previous = holder_of(work, claim)
        if claim.item is None or previous is claimer:
            continue
        waits_for = open_dependencies(work, claim)
        if obstacle_to(work, claim, previous, waits_for, takeover=command.takeover) is None:
            return Reply(take(work, claim, claimer, previous, command), 201)
    if command.candidates:
        raise Outdated(refused=command.refused.union(command.candidates))
    return Reply({}, 204)


def _description(known: WorkItem | None, command: ListItem) -> Json:
    """The item's new description: the given fields replace the old ones, the rest stays."""
    given = command.model_dump(include=set(_DESCRIPTION & command.model_fields_set))
    before = {name: getattr(known, name) for name in _DESCRIPTION} if known else {}
    described = {**dict.fromkeys(_DESCRIPTION), **before, **given}
    return {
        **described,
        "priority": described["priority"] or 0,
        "depends_on": list(dict.fromkeys(described["depends_on"] or ())),
    }


def _require_few(work: UnitOfWork, depends_on: Sequence[str]) -> None:
    """Raise :class:`InvalidInput` for too many dependencies; completed ones are not counted."""
    still_to_do = sum(not work.load(Claim, item_id).is_settled for item_id in depends_on)
    if still_to_do > MAX_DEPENDENCIES:
        raise InvalidInput.of(
            "depends_on",
            f"names {still_to_do} items that are still to do; at most {MAX_DEPENDENCIES} may be",
        )


def _require_no_circle(work: UnitOfWork, item_id: str, depends_on: Sequence[str]) -> None:
    """Raise :class:`DependencyCycle` if anything behind these items waits for ``item_id``.

    Completed items wait for nothing, so neither they nor what they depend on are looked at.
    """
    came_from = dict.fromkeys(depends_on, item_id)
    level = list(depends_on)
    still_to_do = 0
    while level:
        work.prepare(*((Claim, other) for other in level))
        ahead: list[str] = []
        for other in level:
            if other == item_id:
                circle = _path(came_from, item_id)
                if len(circle) > SHOWN_OF_A_CIRCLE:
                    half = SHOWN_OF_A_CIRCLE // 2
                    circle = [*circle[:half], "…", *circle[-half:]]
                raise DependencyCycle.of(
                    "depends_on",
                    f"would make a circle: {' → '.join(circle)}",
                    details={"cycle": circle},
                )
            claim = work.load(Claim, other)
            if claim.is_settled:
                continue
            still_to_do += 1
            if still_to_do > MAX_BEHIND:
                raise InvalidInput.of(
                    "depends_on",
                    f"more than {MAX_BEHIND} items that are still to do would have to come first",
                )
            for behind in claim.item.depends_on if claim.item else ():
                if behind not in came_from:
                    came_from[behind] = other
                    ahead.append(behind)
        level = ahead


def _path(came_from: Mapping[str, str], item_id: str) -> list[str]:
    """The cycle: from the item through its dependencies back to itself."""
    path = [item_id]
    step = came_from[item_id]
    while step != item_id:
        path.append(step)
        step = came_from[step]
    return [item_id, *reversed(path)]


HANDLERS: Mapping[type, Handler] = {
    ListItem: list_item,
    CompleteItem: complete,
    ReopenItem: reopen,
    CancelItem: cancel,
    RemoveItem: remove,
    ClaimNext: claim_next,
}
