"""The rule why an item cannot be claimed, by name or as the next item (spec 6)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from domain.claims.claim import Claim
from domain.claims.holder import Holder
from domain.liveness import ALWAYS, Serving

# Completed or cancelled; held by a holder that keeps it; blocked by open dependencies.
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
    """Why nobody but the holder can claim the item; None if it can be claimed.

    ``holder`` holds the claim now; ``waits_for`` are the open dependencies. A holder that has ended
    does not keep the item. A live one loses it only to a ``takeover``, after more than
    ``stale_seconds`` of silence while the service was reachable.
    """
    if claim.item is not None and claim.item.is_over:
        return "over"
    if holder is not None and not holder.has_ended:
        silent = holder.silent_seconds(at, serving)
        if not claim.may_pass_on(at, silent, stale_seconds, takeover=takeover):
            return "held"
    return "blocked" if waits_for else None
