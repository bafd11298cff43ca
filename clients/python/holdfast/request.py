"""What is asked of the service, before it is sent. Needs the standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from uuid import uuid4

Params = Mapping[str, str | int | float | bool | Sequence[str] | None]
# What a write can bring into being: its id stands in the reply as ``<created>_id``.
Created = Literal["session", "task", "instance", "checkpoint"]

PLACEHOLDER = re.compile(r"unsent-(session|task|instance|checkpoint)-[0-9a-f]{32}")


class Request(NamedTuple):
    """One request; every write has a key that makes repeating it safe."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Params | None = None
    idempotency_key: str | None = None


class Write(NamedTuple):
    """A request that changes something, and what is to be known of it while it cannot be sent.

    ``creates`` is what comes to be. ``replaces`` names what a later write of that name makes
    superfluous (a heartbeat). ``deferrable`` is whether it still means the same later. A ``dated``
    write says in its metadata when it happened, as it may arrive later.
    """

    request: Request
    creates: Created | None = None
    replaces: str | None = None
    deferrable: bool = True
    dated: bool = False


def new_key() -> str:
    """An idempotency key that nothing else has."""
    return str(uuid4())


def new_placeholder(created: Created) -> str:
    """Stands for the id of something that the service does not know of yet."""
    return f"unsent-{created}-{uuid4().hex}"


def is_session(an_id: str) -> bool:
    """Whether an id (or a placeholder) is a session's; an instance's otherwise."""
    return _SESSION.fullmatch(an_id) is not None


_SESSION = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|unsent-session-[0-9a-f]{32}"
)
