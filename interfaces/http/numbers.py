"""The numbers of a body, as they were sent: what the store cannot hold, or not in so little room.

A parsed number no longer tells how it was written, and jsonb writes every number out: ``1e308``
is 309 digits of every reply that has it. So it is the text that is judged, the same wherever the
number stands, and the room that all numbers take together is counted as the store writes them.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

from domain.errors import InvalidInput

MAX_INTEGER = 2**53
MAX_EXPONENT = 99  # of more than two digits none is taken (spec 9)

# A number that may be too large, too small or longer than it looks. Nearly no body has one.
_SUSPECT = re.compile(rb"[\[:,\s]-?(?:\d{16}|\d[\d.]*[eE]|\d+\.\d{90})")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_UNUSUAL = re.compile(rb"-?\d+(?:\.\d+)?[eE][+-]?\d+|-?\d{16,}(?:\.\d+)?|-?\d+\.\d{90,}")

_TOO_LARGE = "is beyond 2^53, where numbers lose digits"
_TOO_LONG = "has an exponent of more than 2 digits"


class _Refused(str):
    """Stands for a number that is refused, and says why."""


def check(raw: bytes, room: int) -> bool:
    """Whether a body, which must be valid JSON, fits into ``room`` with its numbers written out.

    Raises :class:`InvalidInput`, naming the field, for a number beyond 2^53 in magnitude or one
    whose exponent has more than two digits, however it is written.
    """
    if not _SUSPECT.search(raw):
        return True
    size = len(raw)
    for text in _UNUSUAL.findall(_STRING.sub(b'""', raw)):
        written = text.decode()
        if _fault(written):
            raise InvalidInput.of(*_first(raw))
        size += abs(_exponent(written))
        if size > room:
            return False
    return True


def _fault(text: str) -> str | None:
    """What is wrong with a number, if anything is."""
    if abs(_exponent(text)) > MAX_EXPONENT:
        return _TOO_LONG
    value = Decimal(text)
    if abs(value) > MAX_INTEGER:
        return _TOO_LARGE
    return _TOO_LONG if value and value.adjusted() < -MAX_EXPONENT else None


def _exponent(text: str) -> int:
    _, _, exponent = text.lower().partition("e")
    digits = exponent.lstrip("+-")
    if len(digits) > 2:
        return MAX_EXPONENT + 1  # as it is written, 1e007 too: an endless one is not read
    return int(exponent) if digits else 0


def _first(raw: bytes) -> tuple[str, str]:
    """The path of the first number that is refused, and why."""

    def judged(text: str) -> object:
        fault = _fault(text)
        return None if fault is None else _Refused(fault)

    waiting: list[tuple[str, object]] = [
        ("", json.loads(raw, parse_float=judged, parse_int=judged))
    ]
    while waiting:
        path, value = waiting.pop()
        match value:
            case _Refused():
                return path.lstrip(".") or "body", str(value)
            case dict():
                waiting.extend((f"{path}.{key}", item) for key, item in reversed(value.items()))
            case list():
                inner = range(len(value) - 1, -1, -1)
                waiting.extend((f"{path}.{i}", value[i]) for i in inner)
    return "body", _TOO_LARGE  # in a key that the body has twice


def of_arguments(error: InvalidInput) -> InvalidInput:
    """The error of a tool's call, its fields named as the tool's caller knows them."""
    return type(error).of_fields(
        [{**one, "field": one["field"].removeprefix("params.arguments.")} for one in error.errors]
    )
