"""Why an item cannot be claimed: one rule for a claim by name and for the next item (spec 6)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from domain.claims.claim import Claim
from domain.claims.holder import Holder
from domain.liveness import ALWAYS, Serving

# Completed or cancelled; held by one who may keep it; waiting for items that are not done.
Obstacle = Literal["over", "held", "blocked"]


def obstacle(
    claim: Claim,
    holder: Holder | None,
    waits_for: Sequence[str],
    at: datetime,
    *,
    stale_seconds: float,
    takeover: bool,
    serving: Serving = ALWAYS,
) -> Obstacle | None:
    """What is in the way of anyone but the holder; None if the item can be claimed.

    ``holder`` has the claim now and ``waits_for`` are the dependencies that are not done. A holder
    that has ended is in nobody's way; one that lives only loses the item to a ``takeover``, once it
    was silent for more than ``stale_seconds`` in which the service could have heard it.
    """
    if claim.item is not None and claim.item.is_over:
        return "over"
    if holder is not None and not holder.has_ended:
        silent = holder.silent_seconds(at, serving)
        if not claim.may_pass_on(at, silent, stale_seconds, takeover=takeover):
            return "held"
    return "blocked" if waits_for else None
