"""What is asked of the service, before it is sent. Needs the standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote
from uuid import uuid4

from holdfast.facts import spelled

Params = Mapping[str, str | int | float | bool | Sequence[str] | None]
# What a write can bring into being: its id stands in the reply as ``<created>_id``.
Created = Literal["session", "task", "instance", "checkpoint"]

# Those that change something.
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LONGEST_PATH = 8192

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


def dumped(body: Mapping[str, Any]) -> str:
    """A body as it is sent. Raises ``TypeError`` or ``ValueError`` for what is not JSON.

    What is no text, as in file names that are not UTF-8, is spelled out.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested without end") from None
    # Within JSON the backslash has to be one.
    return _NO_TEXT.sub(lambda found: spelled(found[0]).replace("\\", "\\\\"), text)


def moment(seconds: float) -> str:
    """A time since 1970 as the service writes times."""
    told = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")


def takes_time(method: str, path: str) -> bool:
    """Whether the service takes ``occurred_at`` for this write: when it happened, if it is late."""
    return any(method == m and pattern.fullmatch(path) for m, pattern in _DATED)


def is_of_service(path: str) -> bool:
    """Whether it is a path of the service's own, as the client makes them: relative, plain.

    Nothing else is ever asked for: the API key goes with every request.
    """
    if path in ("/health", "/mcp"):
        return True
    segments = path.split("/")[2:]
    return (
        _PATH.fullmatch(path) is not None
        and len(path) <= LONGEST_PATH
        and not {unquote(one) for one in segments} & {".", ".."}
    )


def new_key() -> str:
    """An idempotency key that nothing else has."""
    return str(uuid4())


def new_placeholder(created: Created) -> str:
    """Stands for the id of something that the service does not know of yet."""
    return f"unsent-{created}-{uuid4().hex}"


def is_session(an_id: str) -> bool:
    """Whether an id (or a placeholder) is a session's; an instance's otherwise."""
    return _SESSION.fullmatch(an_id) is not None


_NO_TEXT = re.compile("[\ud800-\udfff]")
_DATED = [
    (method, re.compile(f"/api/{path}"))
    for method, path in (
        ("POST", "(sessions|tasks|instances)"),
        ("PATCH", "(sessions|tasks)/[^/]+"),
        ("POST", "sessions/[^/]+/mark-failed"),
        ("POST", "instances/[^/]+/(close|events|checkpoints)"),
        ("POST", "claims/[^/]+/release"),
        ("POST", "work-items/[^/]+/complete"),
    )
]
_PATH = re.compile(r"/api(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)+")
_SESSION = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|unsent-session-[0-9a-f]{32}"
)
