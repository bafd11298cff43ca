"""Fields that the client adds to a request by itself, beside a service that does not know them yet.

A service refuses a request with a field that it does not know. What the user gave must be refused
then, and told. What the client added is left out, and the request is sent once more: it says no
less than a client of the service's own version would have said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.errors import FieldError, InvalidInput
from holdfast.request import Request

# What the service says of a field that it does not know, rather than of a value that it dislikes.
UNKNOWN = "is not a field of this request"
# What the client may have added to a write that was kept: the file does not say who gave it. There
# is nobody left to be told either, and to leave it out is better than to lose the write.
KEPT = frozenset({"supervisor_fence", "supervisor", "hostname", "tty", "codebase"})


class Added:
    """Marks the value of a field that the client added by itself."""


class AddedNumber(Added, int):
    """A number that the client added by itself."""


class AddedText(Added, str):
    """A text that the client added by itself."""


def marked_as_kept(request: Request) -> Request:
    """A write that was kept, with what the client may have added to it marked as such again."""
    body = {name: _marked(name, value) for name, value in (request.body or {}).items()}
    return request._replace(body=body)


def still_marked(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Any:
    """The body ``now`` with the marks that the same values had in the body ``was``."""
    if was is None or now is None:
        return now
    return {
        name: was[name] if name in was and was[name] == value else value
        for name, value in now.items()
    }


class Unknown:
    """The added fields that a service has refused as unknown, for each kind of request."""

    def __init__(self) -> None:
        self._known: frozenset[tuple[str, str, str]] = frozenset()

    def forget(self) -> None:
        """Try them again: after a break another version of the service may answer."""
        self._known = frozenset()

    def without(self, request: Request) -> Request:
        """The request without the fields that this kind of request was refused for before."""
        if not self._known:
            return request
        method, shape = _kind(request)
        return _less(request, {n for n in _added(request) if (method, shape, n) in self._known})

    def without_refused(self, request: Request, error: InvalidInput) -> Request | None:
        """The request without the added fields that this error names; ``None`` if it names none."""
        refused = refused_of(error.errors, _added(request))
        if not refused:
            return None
        # A value that is out of bounds once need not be so the next time.
        unknown = {one["field"] for one in error.errors if one["message"] == UNKNOWN}
        self._known |= {(*_kind(request), name) for name in refused & unknown}
        return _less(request, refused)


def refused_of(errors: list[FieldError], added: frozenset[str]) -> frozenset[str]:
    """Which of the fields that were added a refusal names."""
    return added & {one["field"] for one in errors}


def _added(request: Request) -> frozenset[str]:
    body = request.body or {}
    return frozenset(name for name, value in body.items() if isinstance(value, Added))


def _less(request: Request, fields: frozenset[str] | set[str]) -> Request:
    if not fields:
        return request
    body = {n: value for n, value in (request.body or {}).items() if n not in fields}
    return request._replace(body=body)


def _marked(name: str, value: Any) -> Any:
    if name not in KEPT or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return AddedText(value)
    return AddedNumber(value) if isinstance(value, int) else value


def _kind(request: Request) -> tuple[str, str]:
    """The method and the path without the id in it."""
    return request.method, _ID.sub(r"\1*", request.path)


_ID = re.compile(r"^(/api/[^/]+/)[^/]+")
