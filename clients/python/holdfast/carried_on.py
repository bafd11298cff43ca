"""What a supervised command finds to carry on: a session, an instance, and what these hold.

Whoever is to be carried on must be open, and nobody else's to look after (decision 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.additions import refused_of
from holdfast.errors import Conflict, InvalidInput, NotFound, Unavailable
from holdfast.supervision import is_gone
from holdfast.whereabouts import this_machine

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.types import Instance, Session

CLAIMS_AT_ONCE = 200
LIVE = frozenset({"active", "paused", "stalled"})


class Held(NamedTuple):
    """An item that a run holds: its fence, and as whom (``session_id`` or ``instance_id``)."""

    fence: int
    holder: dict[str, str]


# What is supervised from here on: each id, and the fence to do so by.
Fences = dict[str, int]


def open_session(
    client: Client, session_id: str, instance_id: str | None, *, takeover: bool
) -> Session:
    """The session, if it can be carried on.

    Not if its instance is alive, unless that is ``instance_id``, which is to be carried on with it,
    or a ``takeover``: then someone else is at work. Raises ``NotFound`` or ``Conflict``.
    """
    session = client.sessions.get(session_id)
    if session["status"] not in LIVE:
        raise Conflict(_over(session), code="session_ended", details={**session})
    worker = None if takeover else worker_in(client, session)
    if worker and worker["status"] == "active" and worker["instance_id"] != instance_id:
        its = worker["instance_id"]
        where = f" on {worker['hostname']}" if worker["hostname"] else ""
        raise Conflict(
            f"Session {session_id} is at work: its instance {its} is alive{where}. If nothing runs"
            f" there any more: --session {session_id} --takeover",
            code="session_at_work",
            details={"session_id": session_id, "instance_id": its},
        )
    return session


def worker_in(client: Client, session: Session) -> Instance | None:
    """The instance that works in a session, or did last, unless that is closed."""
    instance_id = session["instance_id"]
    if instance_id is None:
        return None
    try:
        instance = client.instances.get(instance_id)
    except NotFound:
        return None
    return None if instance["status"] == "closed" else instance


def take_up_instance(
    client: Client, instance: Instance, supervisor: str, *, takeover: bool
) -> Fences:
    """Supervise it from here on.

    Its supervisor must not have changed since it was looked at, and must be gone: silent beyond its
    threshold, ended on this very machine, or said to be (``takeover``). Raises ``Conflict``.
    """
    taken = client.instances.take_up(
        instance["instance_id"],
        supervisor,
        seen_fence=instance["supervisor_fence"] or 0,
        takeover=is_gone(instance["supervisor"]) or takeover,
        hostname=this_machine(),
    )
    return {instance["instance_id"]: _fence(taken, "supervisor_fence")}


def take_up_session(
    client: Client,
    session: Session,
    supervisor: str,
    *,
    takeover: bool,
    instance_id: str | None,
    instance: Instance | None,
    metadata: dict[str, Any],
) -> Fences:
    """Supervise a session from here on, as :func:`take_up_instance` does.

    ``instance_id`` works in it. An ``instance`` that is carried on with it is taken up in the same
    breath, both or neither: of several who come at once none is left with only one of the two.
    """
    with_it: dict[str, Any] = {}
    if instance is not None:
        with_it = {
            "seen_instance_fence": instance["supervisor_fence"] or 0,
            "takeover_instance": is_gone(instance["supervisor"]) or takeover,
        }

    def take(**more: Any) -> Session:
        return client.sessions.take_up(
            session["session_id"],
            supervisor,
            seen_fence=session["supervisor_fence"] or 0,
            takeover=is_gone(session["supervisor"]) or takeover,
            hostname=this_machine(),
            instance_id=instance_id,
            metadata=metadata,
            **more,
        )

    fences: Fences = {}
    try:
        taken = take(**with_it)
    except InvalidInput as e:
        if instance is None or not refused_of(e.errors, frozenset(with_it)):
            raise
        # A service of a former version takes up one at a time.
        fences |= take_up_instance(client, instance, supervisor, takeover=takeover)
        taken = take()
    else:
        if instance is not None:
            fences[instance["instance_id"]] = _fence(taken, "instance_supervisor_fence")
    return {**fences, session["session_id"]: _fence(taken, "supervisor_fence")}


def _fence(taken: Mapping[str, Any], name: str) -> int:
    fence: int | None = taken.get(name)
    if fence is None:
        raise Unavailable(f"The answer is not the service's: it has no {name}.")
    return fence


def held_by(
    client: Client, *, session_id: str | None = None, instance_id: str | None = None
) -> dict[str, Held]:
    """The items that one of the two holds now."""
    holder = {"session_id": session_id} if session_id else {"instance_id": instance_id or ""}
    found: dict[str, Held] = {}
    cursor: str | None = None
    while True:
        page = client.claims.list(
            session_id=holder.get("session_id"),
            instance_id=holder.get("instance_id"),
            limit=CLAIMS_AT_ONCE,
            cursor=cursor,
        )
        found |= {claim["item_id"]: Held(claim["fence"], holder) for claim in page["claims"]}
        cursor = page.get("next_cursor")
        if not cursor:
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
