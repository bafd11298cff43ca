"""What all areas of the API are made of."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Protocol
from urllib.parse import quote

from holdfast.errors import InvalidInput
from holdfast.request import Created, Params, Request, Write


class Unset(Enum):
    """The type of :data:`UNSET`."""

    TOKEN = 0


# Left as it is, where ``None`` would mean to clear it.
UNSET: Final = Unset.TOKEN


class Sender(Protocol):
    """What an area sends with."""

    def read(self, request: Request) -> Any:
        """The reply's body."""

    def write(self, write: Write) -> Any:
        """The reply's body, or what stands in for it."""


class Area:
    """A part of the API."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def _get(self, path: str, **params: Any) -> Any:
        return self._sender.read(Request("GET", path, params=_given(params)))

    def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Params | None = None,
        creates: Created | None = None,
        replaces: str | None = None,
        deferrable: bool = True,
        dated: bool = False,
        idempotency_key: str | None = None,
    ) -> Any:
        request = Request(method, path, _given(body or {}), params, idempotency_key)
        return self._sender.write(Write(request, creates, replaces, deferrable, dated))


def part(value: str) -> str:
    """An id as a part of a path. Raises :class:`InvalidInput` for what is not text."""
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidInput(f"{value!r} is no id: it is not text.") from None


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not UNSET}


def holder(
    session_id: str | None, instance_id: str | None, supervisor_fence: int | None = None
) -> dict[str, Any]:
    """The one holder that is named; the service says what is wrong with none or two.

    With a ``supervisor_fence`` the command is refused once another supervises the holder.
    """
    return said(session_id=session_id, instance_id=instance_id, supervisor_fence=supervisor_fence)


def said(**fields: Any) -> dict[str, Any]:
    """The fields that are not ``None``."""
    return {name: value for name, value in fields.items() if value is not None}
