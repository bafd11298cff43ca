"""What an instance is told that goes on although its work went to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WITHOUT_SESSION = "working_without_session"

_HOW = {
    "recovered": "session {session_id} was recovered",
    "superseded": "session {session_id} lost its place while it was silent",
    "replaced": "session {session_id} was replaced",
    "failed": "session {session_id} was marked failed",
    "deleted": "session {session_id} was deleted",
    "taken_up": "session {session_id} was taken up by another",
    "item_taken_over": "{item_id} was taken over",
}


def told(lost: Mapping[str, Any]) -> str:
    """What went to whom, in a few words."""
    fields = {name: lost.get(name) for name in ("session_id", "item_id")}
    how = _HOW.get(str(lost.get("reason")), "its work was taken from it").format(**fields)
    by = lost.get("by")
    if not by:
        return how
    return f"{how} by {by}" if lost.get("reason") == "item_taken_over" else f"{how}, {by} has it"
