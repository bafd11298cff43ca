"""Moments as the service writes them: ISO 8601 in UTC. Needs the standard library only."""

from __future__ import annotations

from datetime import datetime

# At the ends of the calendar no other time zone can be told of.
FIRST_YEAR, LAST_YEAR = 2, 9998


def read(text: object) -> datetime | None:
    """The moment; ``None`` for what is none."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    is_one = found.tzinfo is not None and FIRST_YEAR <= found.year <= LAST_YEAR
    return found if is_one else None
