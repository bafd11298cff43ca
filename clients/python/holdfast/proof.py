"""How a process shows that the run which it belongs to still looks after its session (decision 15).

A run tells all that it starts by which fences it supervises. What they say in its name carries the
fence, and the service refuses it once another has taken up the session or the instance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from holdfast.additions import AddedNumber
from holdfast.request import Request

# In the environment of the command: ``ID=FENCE``, for its session and its instance.
FENCES = "HOLDFAST_SUPERVISOR_FENCES"

Fences = Mapping[str, int]

FIELD = "supervisor_fence"
HOLDERS = ("session_id", "instance_id")


def told(fences: Fences) -> str:
    """The variable's value."""
    return " ".join(f"{an_id}={fence}" for an_id, fence in fences.items())


def heard(value: str) -> dict[str, int]:
    """What the variable says. What is no fence proves nothing, and is left out."""
    found = {}
    for word in value.split():
        an_id, _, fence = word.rpartition("=")
        if an_id and fence.isascii() and fence.isdecimal():
            found[an_id] = int(fence)
    return found


def proven(request: Request, fence_of: Callable[[str], int | None]) -> Request:
    """The request with the fence of whomever it speaks for, unless it has one."""
    body = request.body or {}
    if request.path == BULK and isinstance(body.get("heartbeats"), list):
        beats = [_with_fence(beat, _named(beat), fence_of) for beat in body["heartbeats"]]
        return request._replace(body={**body, "heartbeats": beats})
    for method, pattern in _FENCED:
        if method == request.method and (found := pattern.fullmatch(request.path)):
            an_id = unquote(found[1]) if pattern.groups else _named(body)
            with_it = _with_fence(body, an_id, fence_of)
            return request if with_it is body else request._replace(body=with_it)
    return request


def proven_arguments(tool: str, arguments: Any, fence_of: Callable[[str], int | None]) -> Any:
    """The arguments of a tool of the service's, as :func:`proven`."""
    return _with_fence(arguments, _named(arguments), fence_of) if tool in TOOLS else arguments


def _named(body: Any) -> str | None:
    """The session or instance that a body speaks for."""
    if not isinstance(body, Mapping):
        return None
    return next((an_id for name in HOLDERS if isinstance(an_id := body.get(name), str)), None)


def _with_fence(body: Any, an_id: str | None, fence_of: Callable[[str], int | None]) -> Any:
    fence = None if an_id is None or FIELD in body else fence_of(an_id)
    return body if fence is None else {**body, FIELD: AddedNumber(fence)}


BULK = "/api/heartbeats"
# Every write that speaks for a session or an instance, which stands in its path or in its body.
_FENCED = [
    (method, re.compile(f"/api/{path}"))
    for method, path in (
        ("PATCH", "sessions/([^/]+)"),
        ("DELETE", "sessions/([^/]+)"),
        ("POST", "sessions/([^/]+)/(?:heartbeat|end|mark-failed|mark-stalled)"),
        ("POST", "instances/([^/]+)/(?:heartbeat|close|events|checkpoints)"),
        ("POST", "tasks"),
        ("POST", "claims"),
        ("POST", "claims/[^/]+/release"),
        ("POST", "work-items/claim-next"),
        ("POST", "work-items/[^/]+/(?:complete|cancel)"),
    )
]
TOOLS = frozenset(
    f"mcp_meta_{name}"
    for name in (
        "heartbeat",
        "emit_event",
        "create_checkpoint",
        "close_instance",
        "claim_work_item",
        "next_work_item",
        "release_work_item",
        "complete_work_item",
    )
)
