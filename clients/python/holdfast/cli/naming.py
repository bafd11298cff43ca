"""Finds whom an id on the command line names: a whole id, or a part of it that is unique."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from holdfast.cli.service import gathered
from holdfast.errors import Conflict, InvalidInput, NotFound
from holdfast.settings import RUN_OVER

if TYPE_CHECKING:
    from holdfast.client import Client

# A reference must have at least as many characters as an instance's hash may be shortened to.
LEAST_CHARACTERS = 4
SESSIONS_AT_ONCE = 100
CATEGORIES = ("session", "instance", "claim", "machine")


class Holder(NamedTuple):
    """The session or instance for which a claim is made."""

    session_id: str | None
    instance_id: str | None

    @property
    def in_words(self) -> str:
        """``session 3f2a…`` or ``instance odin-PS-8f4a2b``."""
        return f"session {self.session_id}" if self.session_id else f"instance {self.instance_id}"


def session_of(client: Client, reference: str) -> str:
    """The id of the session that the reference names.

    Raises :class:`NotFound`, or :class:`InvalidInput` ``ambiguous``.
    """
    if _is_uuid(reference):
        return reference
    found = _sessions(client, reference)
    if not found:
        raise NotFound(f"There is no session {reference}.")
    return _only(reference, found)


def instance_of(client: Client, reference: str) -> str:
    """The id of the instance that the reference names. Raises as :func:`session_of`."""
    return client.instances.get(reference)["instance_id"]


def holder_of(client: Client, session: str | None, instance: str | None) -> Holder:
    """The holder that the options name, or else the environment.

    Raises :class:`InvalidInput`, or :class:`Conflict` if the environment is that of a run which is
    over.
    """
    if session is None and instance is None:
        settings = client.settings
        if settings.session_id:
            return Holder(settings.session_id, None)
        if settings.instance_id:
            return Holder(None, settings.instance_id)
        if settings.past_run:
            raise Conflict(
                f"{RUN_OVER}. Name the holder with --session ID or --instance ID.",
                code="run_over",
                details={"past_run": [*settings.past_run]},
            )
        raise InvalidInput(
            "No holder is given. Name it with --session ID or --instance ID, or set"
            " HOLDFAST_SESSION_ID or HOLDFAST_INSTANCE_ID."
        )
    if session is not None and instance is not None:
        raise InvalidInput("Give either --session or --instance, not both.")
    if session is not None:
        return Holder(session_of(client, session), None)
    assert instance is not None
    return Holder(None, instance_of(client, instance))


def stream_of(client: Client, reference: str) -> str:
    """The stream of the session, instance, work item or machine that the reference names.

    A whole id is preferred to a part of one. Raises as :func:`session_of`.
    """
    given = [reference] if reference.partition("-")[0] in CATEGORIES else []
    for stream_id in [*given, *(f"{category}-{reference}" for category in CATEGORIES)]:
        if _exists(client, stream_id):
            return stream_id
    instances = _instances(client, reference)
    streams = [f"instance-{one}" for one in instances]
    streams += [f"session-{one}" for one in _sessions(client, reference)]
    if not streams:
        raise NotFound(f"There is no instance, session, work item or machine {reference}.")
    return _only(reference, streams)


def _exists(client: Client, stream_id: str) -> bool:
    try:
        client.history.events(stream_id, limit=1)
    except NotFound:
        return False
    return True


def _instances(client: Client, reference: str) -> list[str]:
    try:
        found = client.instances.find(reference)
    except NotFound:
        return []
    matches = found["matches"] if "matches" in found else [found["instance"]]
    return [match["instance_id"] for match in matches]


def _sessions(client: Client, reference: str) -> list[str]:
    if len(reference) < LEAST_CHARACTERS or not set(reference.lower()) <= set("0123456789abcdef-"):
        return []
    page = gathered(client.sessions.list, "sessions", page=SESSIONS_AT_ONCE)
    ids = (session["session_id"] for session in page["sessions"])
    return [one for one in ids if one.startswith(reference.lower())]


def _only(reference: str, found: list[str]) -> str:
    if len(found) > 1:
        several = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise InvalidInput(f"{reference} may be any of {several}", code="ambiguous")
    return found[0]


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
