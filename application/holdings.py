"""What a session or an instance holds: brought into memory, and let go of."""

from __future__ import annotations

from application.work import Work
from domain.claim import Claim
from domain.holder import Holder


def prepare_holdings(work: Work, *holders: Holder) -> None:
    """Bring into memory the claims that these holders have."""
    work.prepare(*((Claim, resource) for holder in holders for resource in holder.held))


def release_all(work: Work, holder: Holder) -> None:
    """Let go of all that a holder has, on both sides."""
    for resource in list(holder.held):
        work.load(Claim, resource).release(work.now, holder.key)
        holder.give_up(work.now, resource)
