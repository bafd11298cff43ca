"""The door for request bodies: what could not be stored faithfully does not get in (spec 13)."""

from __future__ import annotations

import math
import re

import orjson
from starlette.types import Message, Receive, Scope

from domain.aggregate import Json
from domain.errors import InvalidInput
from interfaces.errors import PayloadTooLarge, TooManyBodies
from interfaces.http import numbers
from interfaces.http.leaving import ClientGone

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_INTEGER = numbers.MAX_INTEGER
# What bodies that are still arriving, or wait for their turn, may take up in a process: in all,
# and of one key, in bytes.
MAX_ARRIVING = 64 * 1024 * 1024
MAX_ARRIVING_OF_ONE = 32 * 1024 * 1024

# The escape itself, not a backslash before these letters.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Arriving:
    """How much of bodies that nobody has looked through yet is held, and for whom."""

    def __init__(self) -> None:
        self._total = 0
        self._of: dict[str, int] = {}

    def add(self, who: str, size: int) -> None:
        """Count what has arrived. Raises :class:`TooManyBodies` if that is too much."""
        if self._total + size > MAX_ARRIVING or self._of.get(who, 0) + size > MAX_ARRIVING_OF_ONE:
            raise TooManyBodies
        self._total += size
        self._of[who] = self._of.get(who, 0) + size

    def remove(self, who: str, size: int) -> None:
        """It has arrived as a whole, or never will."""
        self._total -= size
        self._of[who] -= size
        if not self._of[who]:
            del self._of[who]


_arriving = _Arriving()
# Looking through a body of this size takes so long that there is one in a round of the event loop.
LARGE = 16 * 1024


async def read(scope: Scope, receive: Receive) -> bytes:
    """The whole body, for whoever has shown a key.

    Raises :class:`PayloadTooLarge` as soon as it is known to be, :class:`TooManyBodies`, and
    ``ClientGone`` if the rest will never come: half a body is none.
    """
    raw = await _read(scope, receive)
    doorkeeper = scope["state"].get("doorkeeper")
    if len(raw) > LARGE and doorkeeper is not None:
        who: str = scope["state"]["principal"].key_id
        _arriving.add(who, len(raw))
        try:
            await doorkeeper.wait_for_large_body(who, len(raw))
        finally:
            _arriving.remove(who, len(raw))
    return raw


async def _read(scope: Scope, receive: Receive) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BYTES:
            raise PayloadTooLarge
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        # Nearly every body comes in one piece.
        whole: bytes = message.get("body", b"")
        if len(whole) > MAX_BYTES:
            raise PayloadTooLarge
        return whole
    return await _rest(message, receive, scope["state"]["principal"].key_id)


async def _rest(message: Message, receive: Receive, who: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            if size + len(chunk) > MAX_BYTES:
                raise PayloadTooLarge
            if chunk:
                _arriving.add(who, len(chunk))
                size += len(chunk)
                chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await receive()
    finally:
        if size:
            _arriving.remove(who, size)


def parse(raw: bytes) -> Json:
    """The body as a JSON object; an empty body is an empty object.

    Raises :class:`InvalidInput` for anything else, and for what JSON can say and the store cannot
    keep: NaN, infinities, ``\\u0000``, lone surrogates, depth over 64, and numbers beyond 2^53 or
    with an exponent of more than two digits. :class:`PayloadTooLarge` for a body that is larger
    than any may be once its numbers are written out, as the store does.
    """
    if not raw.strip():
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as e:
        raise InvalidInput.of("body", f"is not valid JSON ({e})") from None
    if not isinstance(value, dict):
        raise InvalidInput.of("body", "must be a JSON object")
    # Nearly every body is plain: one look at the bytes tells that there is nothing to find. The
    # parser has refused infinities and half surrogate pairs already.
    if (b"\\u0000" in raw and _NUL.search(raw)) or _is_deep(raw, value):
        inspect(value)
    if not numbers.check(raw, MAX_BYTES):
        raise PayloadTooLarge("The body is larger than 256 KiB with its numbers written out.")
    return value


def _is_deep(raw: bytes, value: Json) -> bool:
    """Whether objects and arrays are nested more than ``MAX_DEPTH`` deep."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    level: list[Json | list[object]] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def inspect(root: Json) -> None:
    """Raise :class:`InvalidInput` for what :func:`parse` refuses, in JSON that others parsed."""
    waiting: list[tuple[str, object, int]] = [("", root, 1)]
    while waiting:
        path, value, depth = waiting.pop()
        field = path.lstrip(".") or "body"
        if depth > MAX_DEPTH and isinstance(value, dict | list):
            raise InvalidInput.of(field[:100], f"is nested deeper than {MAX_DEPTH} levels")
        match value:
            case dict():
                for key, item in value.items():
                    if "\x00" in key or _SURROGATE.search(key):
                        what = "has a key with the character \\u0000 or half a surrogate pair"
                        raise InvalidInput.of(field, what)
                    waiting.append((f"{path}.{key}", item, depth + 1))
            case list():
                waiting.extend((f"{path}.{i}", item, depth + 1) for i, item in enumerate(value))
            case str() if "\x00" in value:
                raise InvalidInput.of(field, "has the character \\u0000, which cannot be stored")
            case str() if _SURROGATE.search(value):
                raise InvalidInput.of(field, "has half a surrogate pair, which cannot be stored")
            case bool():
                pass
            case float() if not math.isfinite(value):
                raise InvalidInput.of(field, "is not a finite number")
            case int() | float() if abs(value) > MAX_INTEGER:
                raise InvalidInput.of(field, "is beyond 2^53, where numbers lose digits")
            case _:
                pass
