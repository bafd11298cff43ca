"""What a supervised command finds to carry on: a session, an instance, and what these hold.

Whoever is to be carried on must be open, and nobody else's to look after (decision 10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holdfast.api.area import part
from holdfast.errors import Conflict, NotFound
from holdfast.request import Request

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.types import Instance, Session

CLAIMS_AT_ONCE = 200
LIVE = frozenset({"active", "paused", "stalled"})


class Held(NamedTuple):
    """An item that a run holds: its fence, and as whom (``session_id`` or ``instance_id``)."""

    fence: int
    holder: dict[str, str]


def open_session(client: Client, session_id: str, instance_id: str | None) -> Session:
    """The session, if it can be carried on.

    Not if its instance is alive, unless that is ``instance_id``, which is to be carried on with it:
    then another supervisor is at work. Raises ``NotFound`` or ``Conflict``.
    """
    session = client.sessions.get(session_id)
    if session["status"] not in LIVE:
        raise Conflict(_over(session), code="session_ended", details={**session})
    supervisor = supervised_by(client, session)
    if supervisor and supervisor["status"] == "active" and supervisor["instance_id"] != instance_id:
        its = supervisor["instance_id"]
        raise Conflict(
            f"Session {session_id} is at work: its instance {its} is alive. If nothing runs there"
            f" any more, carry on both: --session {session_id} --instance {its}",
            code="session_at_work",
            details={"session_id": session_id, "instance_id": its},
        )
    return session


def supervised_by(client: Client, session: Session) -> Instance | None:
    """The instance that a session was run by last, unless that is closed."""
    told = session["metadata"].get("supervisor")
    # A successor inherits metadata: what is said there of another session does not count.
    if isinstance(told, dict) and told.get("session_id") == session["session_id"]:
        instance_id = told.get("instance_id")
    else:
        instance_id = session["instance_id"]
    if not isinstance(instance_id, str):
        return None
    try:
        instance = client.instances.get(instance_id)
    except NotFound:
        return None
    return None if instance["status"] == "closed" else instance


def open_instance(client: Client, instance_id: str) -> Instance:
    """The instance, after a sign of life. Raises ``NotFound``, or ``Conflict`` if it is closed."""
    instance = client.instances.get(instance_id)
    client.send(Request("POST", f"/api/instances/{part(instance_id)}/heartbeat", {}))
    return instance


def held_by(
    client: Client, *, session_id: str | None = None, instance_id: str | None = None
) -> dict[str, Held]:
    """The items that one of the two holds now."""
    holder = {"session_id": session_id} if session_id else {"instance_id": instance_id or ""}
    found: dict[str, Held] = {}
    while True:
        page = client.claims.list(**holder, limit=CLAIMS_AT_ONCE, offset=len(found))
        found |= {claim["item_id"]: Held(claim["fence"], holder) for claim in page["claims"]}
        if not page["has_more"]:
            return found


def _over(session: Session) -> str:
    heir = session["recovered_to"]
    if heir:
        return (
            f"Session {session['session_id']} was recovered; {heir} carries its work on:"
            f" holdfast run --session {heir}"
        )
    said = f"Session {session['session_id']} has {session['status']}."
    if session["status"] == "failed":
        return f"{said} holdfast recover {session['session_id']} --onto MACHINE carries it on."
    return said
