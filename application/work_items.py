"""Work items: what there is to do, in which order, and the next one to do (spec 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from application.claim_view import item_view
from application.claims import (
    Claiming,
    ForHolder,
    claimer_of,
    open_dependencies,
    require_held_by,
    take,
)
from application.fields import (
    Command,
    FenceNumber,
    Found,
    GivenItemId,
    Integer,
    ItemId,
    Label,
    Name,
    Sought,
)
from application.holdings import holder_of
from application.work import Handler, Outdated, Reply, Work
from domain.aggregate import Json
from domain.claim import Claim
from domain.errors import DependencyCycle, InvalidInput
from domain.work_item import WorkItem

MAX_DEPENDENCIES = 100
# How far a check for circles reads on behind an item: that many items, that many steps away.
MAX_BEHIND = 5_000
MAX_STEPS = 64
_DESCRIPTION = frozenset({"title", "track", "priority", "depends_on"})


class ListItem(Command):
    """Put a work item on the list, or change how it is described; what is left out stays."""

    item_id: GivenItemId
    title: Name | None = None
    track: Label | None = None
    priority: Annotated[Integer, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    depends_on: Annotated[list[ItemId], Field(max_length=MAX_DEPENDENCIES)] | None = None


class CompleteItem(ForHolder):
    """Say that a work item is done; only its holder can, and lets go of it so."""

    item_id: Sought
    fence: FenceNumber | None = None


class ClaimNext(Claiming):
    """Claim the open item of highest priority whose dependencies are completed."""

    track: Label | None = None
    candidates: Found[Sequence[str]] = ()


def list_item(work: Work, command: ListItem) -> Reply:
    """The item: 201 if it is new, else 200."""
    claim = work.load(Claim, command.item_id)
    holder = holder_of(work, claim)
    is_new = claim.item is None
    description = _description(claim.item, command)
    known = claim.item.depends_on if claim.item else ()
    added = [item_id for item_id in description["depends_on"] if item_id not in known]
    _require_no_circle(work, command.item_id, added)
    work.prepare(*((Claim, item_id) for item_id in description["depends_on"]))
    claim.list_item(work.now, **description)
    value = item_view(
        claim,
        work.now,
        work.policy.claim_stale_seconds,
        holder=holder,
        blocked_by=open_dependencies(work, claim),
    )
    return Reply(value, 201 if is_new else 200)


def complete(work: Work, command: CompleteItem) -> Reply:
    """The completed item, which nobody holds any more."""
    claim = work.load(Claim, command.item_id)
    claimer = claimer_of(work, command)
    claim.require_listed()
    claimer.require_writable()
    claim.require_open()
    require_held_by(work, claim, claimer, command.fence)
    claim.complete(work.now)
    claimer.give_up(work.now, claim.resource)
    return Reply(item_view(claim, work.now, work.policy.claim_stale_seconds))


def claim_next(work: Work, command: ClaimNext) -> Reply:
    """201 with the claim, 204 when there is nothing to claim.

    The candidates come from a read model, the best first; each is decided by its own claim.
    Raises :class:`Outdated` when others were faster with all of them.
    """
    claimer = claimer_of(work, command)
    claimer.require_writable()
    work.prepare(*((Claim, item_id) for item_id in command.candidates))
    for item_id in command.candidates:
        claim = work.load(Claim, item_id)
        if claim.status != "open" or open_dependencies(work, claim):
            continue
        return Reply(take(work, claim, claimer, None, command), 201)
    if command.candidates:
        raise Outdated("Others kept claiming first; try again.")
    return Reply({}, 204)


def _description(known: WorkItem | None, command: ListItem) -> Json:
    """How the item is described from now on: as before, but for what was given."""
    given = command.model_dump(include=set(_DESCRIPTION & command.model_fields_set))
    before = {name: getattr(known, name) for name in _DESCRIPTION} if known else {}
    described = {**dict.fromkeys(_DESCRIPTION), **before, **given}
    return {
        **described,
        "priority": described["priority"] or 0,
        "depends_on": list(dict.fromkeys(described["depends_on"] or ())),
    }


def _require_no_circle(work: Work, item_id: str, depends_on: Sequence[str]) -> None:
    """Raise :class:`DependencyCycle` if anything behind these items waits for ``item_id``."""
    came_from = dict.fromkeys(depends_on, item_id)
    level = list(depends_on)
    steps = 0
    while level:
        steps += 1
        if len(came_from) > MAX_BEHIND or steps > MAX_STEPS:
            raise InvalidInput.of(
                "depends_on",
                f"more than {MAX_BEHIND} items, or {MAX_STEPS} in a row, would have to come first",
            )
        work.prepare(*((Claim, other) for other in level))
        ahead: list[str] = []
        for other in level:
            if other == item_id:
                circle = _path(came_from, item_id)
                raise DependencyCycle.of(
                    "depends_on",
                    f"would make a circle: {' → '.join(circle)}",
                    details={"cycle": circle},
                )
            item = work.load(Claim, other).item
            for behind in item.depends_on if item else ():
                if behind not in came_from:
                    came_from[behind] = other
                    ahead.append(behind)
        level = ahead


def _path(came_from: Mapping[str, str], item_id: str) -> list[str]:
    """From the item over what it waits for back to itself."""
    path = [item_id]
    step = came_from[item_id]
    while step != item_id:
        path.append(step)
        step = came_from[step]
    return [item_id, *reversed(path)]


HANDLERS: Mapping[type, Handler] = {
    ListItem: list_item,
    CompleteItem: complete,
    ClaimNext: claim_next,
}
