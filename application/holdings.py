"""The claims of a session or an instance: load, grant, move, release.

Each change writes to both sides in one append: the claim's stream and its holder's (spec 6).
"""

from __future__ import annotations

from collections.abc import Iterable

from application.engine.unit_of_work import UnitOfWork
from domain.claims.claim import Claim, HolderKind, is_work_item
from domain.claims.holder import Holder
from domain.instances.instance import Instance
from domain.sessions.session import Session

HOLDERS: dict[HolderKind, type[Session | Instance]] = {"session": Session, "instance": Instance}


def holder_of(work: UnitOfWork, claim: Claim) -> Holder | None:
    """The session or instance that holds the claim."""
    if claim.holder_kind is None or claim.holder_id is None:
        return None
    return work.load(HOLDERS[claim.holder_kind], claim.holder_id)


def prepare_holders(work: UnitOfWork, *claims: Claim) -> None:
    """Load the holders of these claims."""
    work.prepare(
        *(
            (HOLDERS[claim.holder_kind], claim.holder_id)
            for claim in claims
            if claim.holder_kind is not None and claim.holder_id is not None
        )
    )


def prepare_holdings(work: UnitOfWork, *holders: Holder) -> None:
    """Load the claims of these holders."""
    work.prepare(*((Claim, resource) for holder in holders for resource in holder.held))


def grant(
    work: UnitOfWork,
    claim: Claim,
    to: Session | Instance,
    previous: Holder | None = None,
    **owner: str | None,
) -> None:
    """Give a claim to a holder, from the ``previous`` one if there is one.

    ``owner`` says where the holder is at a work item (``hostname``, ``tty``, ``codebase``); what
    it leaves out is as the holder itself said. One that never named its host is known by its
    machine.
    """
    kind: HolderKind = "session" if isinstance(to, Session) else "instance"
    said: dict[str, str | None] = {}
    if is_work_item(claim.resource):
        hostname = owner.get("hostname") or to.hostname or to.machine
        said = {
            "hostname": hostname,
            "tty": owner.get("tty") or to.tty,
            "codebase": owner.get("codebase") or to.codebase,
            "machine_id": to.machine or hostname,
        }
    fence = claim.grant(work.now, kind, to.key, **said)
    if previous is not None:
        previous.lose(work.now, claim.resource, to.key)
    to.acquire(work.now, claim.resource, fence)


def move(
    work: UnitOfWork, resources: Iterable[str], holder: Holder, to: Session | Instance
) -> None:
    """Give these claims of a holder to its successor, each with the next fence."""
    for resource in list(resources):
        grant(work, work.load(Claim, resource), to, holder)


def release_all(work: UnitOfWork, holder: Holder) -> None:
    """Release all claims of a holder, on both sides."""
    for resource in list(holder.held):
        release(work, work.load(Claim, resource), holder)


def release(work: UnitOfWork, claim: Claim, holder: Holder) -> None:
    """Release one claim, on both sides."""
    claim.release(work.now, holder.key)
    holder.give_up(work.now, claim.resource)
