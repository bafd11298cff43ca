"""Claims: exclusive, fenced ownership of work items (S3, spec 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import StrictBool

from application.claim_view import owner, view
from application.engine.fields import (
    BySupervisor,
    Command,
    Dated,
    Fence,
    FenceNumber,
    GivenItemId,
    Id,
    Label,
    Name,
    Sought,
)
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.holdings import grant, holder_of, release
from application.workers import concerned, named_instance, named_session, note_takeover
from domain.claims.claim import Claim
from domain.claims.claimable import Obstacle, obstacle
from domain.claims.holder import Holder
from domain.errors import (
    BlockedByDependencies,
    ClaimHeld,
    InvalidInput,
    NotHolder,
    TooManyClaims,
)
from domain.instances.instance import Instance
from domain.sessions.session import Session

# A holder's read-model row, its end and its recovery each list all its claims at once.
MAX_HELD = 10_000


class ForHolder(BySupervisor):
    """A command on behalf of exactly one session or instance.

    A supervisor may send its fence with it, as with a heartbeat.
    """

    session_id: Id | None = None
    instance_id: Id | None = None


class Claiming(ForHolder):
    """What a claimer says of itself; what is left out is taken from its session or instance."""

    hostname: Label | None = None
    tty: Name | None = None
    codebase: Name | None = None


class ClaimItem(Claiming):
    """Claim a work item for a session or an instance; an unknown item is added to the queue."""

    item_id: GivenItemId
    takeover: StrictBool = False


class ReleaseClaim(ForHolder, Dated):
    """Release a claim, so that others can claim the work item."""

    item_id: Sought
    fence: FenceNumber | None = None


class ProveFence(Command):
    """Check only the fence: sent first by an action that then sends several commands."""


class VerifyFence(Command):
    """Check that a claim is still held under a fence; for guards outside of the service."""

    item_id: Sought
    fence: FenceNumber


def claim_item(work: UnitOfWork, command: ClaimItem) -> Reply:
    """201 with the claim; 200, and no change, if the caller holds it already."""
    claim = work.load(Claim, command.item_id)
    claimer = claimer_of(work, command)
    previous = holder_of(work, claim)
    waits_for = open_dependencies(work, claim)
    claimer.require_writable()
    if previous is claimer:
        return Reply(_claim(work, claim, claimer))
    found = obstacle_to(work, claim, previous, waits_for, takeover=command.takeover)
    if found == "over":
        claim.require_open()
    if found == "held" and previous is not None:
        stale_seconds = work.policy.claim_stale_seconds
        raise ClaimHeld(
            f"{claim.resource} is already claimed by {claim.holder_kind} {claim.holder_id}.",
            details=owner(claim, previous, work.now, stale_seconds, work.serving),
        )
    if found == "blocked":
        raise BlockedByDependencies(
            f"{claim.resource} waits for {', '.join(waits_for)}.",
            details={"item_id": claim.resource, "blocked_by": waits_for},
        )
    return Reply(take(work, claim, claimer, previous, command), 201)


def release_claim(work: UnitOfWork, command: ReleaseClaim) -> Reply:
    """The claim, now without a holder."""
    claim = work.load(Claim, command.item_id)
    claimer = claimer_of(work, command)
    claim.require_claimed_once()
    claimer.require_writable()
    require_held_by(work, claim, claimer, command.fence)
    release(work, claim, claimer)
    return Reply(_claim(work, claim))


def verify_fence(work: UnitOfWork, command: VerifyFence) -> Reply:
    """``valid: true``. Raises ``StaleFence`` for any fence but the current holder's."""
    claim = work.load(Claim, command.item_id)
    holder = holder_of(work, claim)
    claim.require_claimed_once()
    claim.require_fence(command.fence)
    return Reply({"valid": True, **_claim(work, claim, holder)})


def prove_fence(work: UnitOfWork, command: ProveFence) -> Reply:
    """Do nothing: ``fenced`` refuses a stale fence before this is called."""
    return Reply({})


def fenced(handler: Handler) -> Handler:
    """Wrap a handler: refuse a command that carries a stale fence before the handler runs."""

    def guarded(work: UnitOfWork, command: Any) -> Reply:
        given: Fence | None = command.claim
        if given is not None:
            work.load(Claim, given.item_id).require_fence(given.fence)
        return handler(work, command)

    return guarded


# Shared with the work items' commands


def claimer_of(work: UnitOfWork, command: ForHolder) -> Session | Instance:
    """The session or instance on whose behalf the command was sent.

    Raises ``InvalidInput``, or ``SupervisorReplaced`` for a former supervisor's fence.
    """
    claimer = _claimer(work, command)
    if not claimer.has_ended:
        # For an ended holder, "it has ended" tells more than "stale fence".
        claimer.require_supervisor(command.supervisor_fence)
    return claimer


def _claimer(work: UnitOfWork, command: ForHolder) -> Session | Instance:
    if command.session_id is not None and command.instance_id is not None:
        message = "name one holder: session_id or instance_id, not both"
        raise InvalidInput.of_fields(
            [{"field": name, "message": message} for name in ("session_id", "instance_id")]
        )
    if command.session_id is not None:
        return named_session(work, command.session_id)
    if command.instance_id is not None:
        return named_instance(work, command.instance_id)
    raise InvalidInput.of("session_id", "is required, or instance_id: a claim has a holder")


def require_held_by(work: UnitOfWork, claim: Claim, claimer: Holder, fence: int | None) -> None:
    """Raise unless the claimer holds the claim, under this fence if one is given.

    Raises ``NotHolder``, whose details describe the holder, or ``StaleFence``.
    """
    holder = holder_of(work, claim)
    if holder is not claimer:
        details = {"item_id": claim.resource, "claimed_by": None, "holder_kind": None}
        if holder is not None:
            stale_seconds = work.policy.claim_stale_seconds
            details = owner(claim, holder, work.now, stale_seconds, work.serving)
        who = f"{claim.holder_kind} {claim.holder_id}" if holder else "nobody"
        raise NotHolder(f"{claim.resource} is held by {who}.", details=details)
    if fence is not None:
        claim.require_fence(fence)


def open_dependencies(work: UnitOfWork, claim: Claim) -> list[str]:
    """The dependencies that must still be completed before this item can be claimed (spec 6).

    A cancelled or removed dependency does not block: it will never be completed.
    """
    ids = claim.item.depends_on if claim.item and not claim.item.is_over else []
    work.prepare(*((Claim, item_id) for item_id in ids))
    return [item_id for item_id in ids if not work.load(Claim, item_id).is_settled]


def obstacle_to(
    work: UnitOfWork,
    claim: Claim,
    holder: Holder | None,
    waits_for: Sequence[str],
    *,
    takeover: bool,
) -> Obstacle | None:
    """Why this item cannot be claimed now by anyone but its holder; None if it can be."""
    return obstacle(
        claim,
        holder,
        waits_for,
        work.now,
        stale_seconds=work.policy.claim_stale_seconds,
        takeover=takeover,
        serving=work.serving,
    )


def take(
    work: UnitOfWork,
    claim: Claim,
    claimer: Session | Instance,
    previous: Holder | None,
    said: Claiming,
) -> dict[str, Any]:
    """Give the item to the claimer and return the claim. Raises ``TooManyClaims``."""
    if len(claimer.held) >= MAX_HELD:
        raise TooManyClaims(details={"held": len(claimer.held)})
    loser, winner = concerned(work, previous, claimer)
    if claim.item is None:
        claim.list_item(work.now)
    taken_from = claim.holder_id
    grant(
        work,
        claim,
        claimer,
        previous,
        hostname=said.hostname,
        tty=said.tty,
        codebase=said.codebase,
    )
    if loser is not winner:
        note_takeover(work, claim.resource, loser, previous, claimer)
    if winner is not None:
        winner.regain_work(work.now, claim.resource)
    value = _claim(work, claim, claimer)
    if taken_from is not None:
        value["taken_from"] = taken_from
    return value


def _claim(work: UnitOfWork, claim: Claim, holder: Holder | None = None) -> dict[str, Any]:
    return view(claim, holder, work.now, work.policy.claim_stale_seconds, work.serving)


HANDLERS: Mapping[type, Handler] = {
    ClaimItem: claim_item,
    ReleaseClaim: release_claim,
    ProveFence: prove_fence,
    VerifyFence: verify_fence,
}
