"""What the service answers to each request: whatever answers otherwise is not the service.

One definition of every reply, in :mod:`holdfast.types`. What is optional there may be missing, what
is not mentioned there may come in addition: an older or newer service is still the service.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from holdfast import moments
from holdfast.types import (
    ActiveSessions,
    Beats,
    Checkpoint,
    Claim,
    ClaimPage,
    ClosedInstance,
    Counts,
    Description,
    Emitted,
    EventPage,
    EventTypes,
    FeedPage,
    Forest,
    Found,
    Health,
    Instance,
    InstanceBeat,
    InstancePage,
    Json,
    Machine,
    MachinePage,
    RecoveredSession,
    Replay,
    Resume,
    Session,
    SessionBeat,
    SessionPage,
    StalledSessions,
    TakenUpSession,
    Task,
    TaskPage,
    WorkItem,
    WorkItemPage,
)

# The service takes 64 levels, and wraps them in a few.
MAX_DEPTH = 200
LONGEST_NUMBER = 400
# No count and no age is beyond it, and every number below it can be reckoned with.
LARGEST_NUMBER = 1 << 63

_SESSION, _TASK, _MACHINE = "/api/sessions/{}", "/api/tasks/{}", "/api/machines/{}"
_INSTANCE, _STREAM = "/api/instances/{}", "/api/streams/{}"
_CLAIM, _ITEM = "/api/claims/{}", "/api/work-items/{}"

# What is not listed is only known to be an object, or nothing. A fixed path before a variable one.
REPLIES: Mapping[tuple[str, str], Any] = {
    ("GET", "/health"): Health,
    ("GET", "/api/docs"): Description,
    ("POST", "/api/heartbeats"): Beats,
    ("POST", "/api/sessions"): Session,
    ("GET", "/api/sessions"): SessionPage,
    ("GET", "/api/sessions/active"): ActiveSessions,
    ("GET", "/api/sessions/archived"): SessionPage,
    ("GET", "/api/sessions/health"): Counts,
    ("GET", "/api/sessions/stalled"): StalledSessions,
    ("POST", "/api/sessions/detect-failures"): Json,
    ("POST", "/api/sessions/cleanup"): Json,
    ("GET", _SESSION): Session,
    ("PATCH", _SESSION): Session,
    ("DELETE", _SESSION): None,
    ("POST", f"{_SESSION}/heartbeat"): SessionBeat,
    ("GET", f"{_SESSION}/health"): Json,
    ("GET", f"{_SESSION}/recovery-state"): Json,
    ("POST", f"{_SESSION}/recover"): RecoveredSession,
    ("POST", f"{_SESSION}/mark-failed"): Session,
    ("POST", f"{_SESSION}/mark-stalled"): Session,
    ("POST", f"{_SESSION}/archive"): Session,
    ("POST", f"{_SESSION}/take-up"): TakenUpSession,
    ("POST", f"{_SESSION}/put-down"): Session,
    ("POST", f"{_SESSION}/end"): Session,
    ("POST", f"{_SESSION}/prepare-recovery"): Session,
    ("POST", "/api/tasks"): Task,
    ("GET", "/api/tasks"): TaskPage,
    ("GET", _TASK): Task,
    ("PATCH", _TASK): Task,
    ("DELETE", _TASK): None,
    ("POST", "/api/machines"): Machine,
    ("GET", "/api/machines"): MachinePage,
    ("GET", _MACHINE): Machine,
    ("PATCH", _MACHINE): Machine,
    ("POST", f"{_MACHINE}/heartbeat"): Machine,
    ("POST", "/api/instances"): Instance,
    ("GET", "/api/instances"): InstancePage,
    ("GET", _INSTANCE): Found,
    ("POST", f"{_INSTANCE}/heartbeat"): InstanceBeat,
    ("PUT", f"{_INSTANCE}/parent"): Instance,
    ("POST", f"{_INSTANCE}/close"): ClosedInstance,
    ("POST", f"{_INSTANCE}/take-up"): Instance,
    ("POST", f"{_INSTANCE}/put-down"): Instance,
    ("POST", f"{_INSTANCE}/events"): Emitted,
    ("GET", f"{_INSTANCE}/events"): EventPage,
    ("GET", f"{_INSTANCE}/replay"): Replay,
    ("POST", f"{_INSTANCE}/checkpoints"): Checkpoint,
    ("POST", f"{_INSTANCE}/resume"): Resume,
    ("GET", f"{_INSTANCE}/resume"): Resume,
    ("GET", "/api/v1/registry/topology"): Forest,
    ("GET", "/api/events"): FeedPage,
    ("GET", "/api/event-types"): EventTypes,
    ("GET", f"{_STREAM}/events"): EventPage,
    ("GET", f"{_STREAM}/replay"): Replay,
    ("POST", "/api/claims"): Claim,
    ("GET", "/api/claims"): ClaimPage,
    ("GET", _CLAIM): Claim,
    ("POST", f"{_CLAIM}/release"): Claim,
    ("POST", f"{_CLAIM}/verify"): Json,
    ("POST", "/api/work-items"): WorkItem,
    ("GET", "/api/work-items"): WorkItemPage,
    ("POST", "/api/work-items/claim-next"): Union[Claim, None],  # noqa: UP007
    ("GET", _ITEM): WorkItem,
    ("POST", f"{_ITEM}/complete"): WorkItem,
    ("POST", f"{_ITEM}/reopen"): WorkItem,
    ("POST", f"{_ITEM}/cancel"): WorkItem,
}


def parsed(content: bytes) -> Any:
    """JSON as the service writes it. Raises ``ValueError`` that says why it is none."""
    try:
        value = json.loads(
            content, parse_constant=_no_number, parse_float=_number, parse_int=_whole_number
        )
    except RecursionError:
        raise ValueError("it is nested without end") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH and _is_deep(value):
        raise ValueError("it is nested without end")
    return value


def fault_of(method: str, path: str, body: object) -> str | None:
    """What is wrong with the reply to a request; ``None`` if nothing is."""
    return wrong(body, _expected(method, path.partition("?")[0]), "the reply")


def wrong(value: object, expected: Any, where: str) -> str | None:
    """What of a value is not as its type says; ``None`` if all is.

    Which words a ``Literal`` has does not matter: a newer service knows others.
    """
    if expected is Any:
        return None
    if is_typeddict(expected):
        return _wrong_object(value, expected, where)
    origin = get_origin(expected)
    if origin is Union or origin is types.UnionType:
        faults = [wrong(value, one, where) for one in get_args(expected)]
        return None if None in faults else faults[0]
    if origin is Annotated:
        return None if moments.read(value) is not None else f"{where} is no moment"
    if origin is list:
        if not isinstance(value, list):
            return f"{where} is no list"
        (item,) = get_args(expected)
        return next(filter(None, (wrong(one, item, f"{where}[]") for one in value)), None)
    if origin is dict:
        expected = dict
    elif origin is Literal:
        expected = type(get_args(expected)[0])
    return None if _is(value, expected) else f"{where} is not what it should be"


def _wrong_object(value: object, expected: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is no object"
    for name, kind in _fields(expected).items():
        if name in value:
            if (fault := wrong(value[name], kind, name)) is not None:
                return fault
        elif name in expected.__required_keys__:
            return f"{where} has no {name}"
    return None


def _is(value: object, expected: Any) -> bool:
    if expected is None or expected is type(None):
        return value is None
    if expected in (int, float):
        kinds = int if expected is int else int | float
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return abs(value) < LARGEST_NUMBER
    return isinstance(value, expected)


@cache
def _fields(expected: Any) -> Mapping[str, Any]:
    return get_type_hints(expected, include_extras=True)


def _expected(method: str, path: str) -> Any:
    parts = path.split("/")
    for pattern, reply in _PATTERNS.get((method, len(parts)), ()):
        if all(one in ("{}", other) for one, other in zip(pattern, parts, strict=True)):
            return reply
    return Union[dict[str, Any], None]  # noqa: UP007


def _patterns() -> dict[tuple[str, int], list[tuple[Sequence[str], Any]]]:
    found: dict[tuple[str, int], list[tuple[Sequence[str], Any]]] = {}
    for (method, path), reply in REPLIES.items():
        parts = path.split("/")
        found.setdefault((method, len(parts)), []).append((parts, reply))
    return found


_PATTERNS = _patterns()


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _number(text: str) -> float:
    found = float(text)
    if found in (float("inf"), float("-inf")):
        raise ValueError("it has a number beyond all bounds")
    return found


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("it has a number beyond all bounds")
    return int(text)
