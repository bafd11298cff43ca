"""Checks the numbers of a body as they were sent: too large, too small, or too long in the store.

A parsed number no longer tells how it was written, and jsonb writes every number out: ``1e308``
is 309 digits of every reply that has it. So it is the text that is judged, the same wherever the
number stands, and the room that all numbers take together is counted as the store writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import islice

from domain.errors import InvalidInput

MAX_INTEGER = 2**53
MAX_EXPONENT = 99  # of more than two digits none is taken (spec 9)
SMALLEST = 1e-99

# A number that may be too large, too small or longer than it looks. Nearly no body has one.
_SUSPECT = re.compile(rb"[\[:,\s]-?(?:\d{16}|\d[\d.]*[eE]|\d+\.\d{90})")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_UNUSUAL = re.compile(rb"-?\d+(?:\.\d+)?[eE][+-]?\d+|-?\d{16,}(?:\.\d+)?|-?\d+\.\d{90,}")
_EXPONENT = re.compile(rb"[eE][+-]?(\d+)")
_NOT_ZERO = re.compile(rb"-?[0.]*[1-9]")
_TOKEN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|(-?\d[\d.eE+-]*)|([{}\[\]:,])', re.DOTALL)

_TOO_LARGE = "is beyond 2^53, where numbers lose digits"
_TOO_LONG = "has an exponent of more than 2 digits"
# Who sends one that is wrong mostly sends it early.
FIRST_LOOK = 20
# Whoever sends more before the number that is refused, is not told which field it is.
_TOKENS_TO_NAME = 10_000


def check(raw: bytes, room: int) -> bool:
    """Whether a body, which must be valid JSON, fits into ``room`` with its numbers written out.

    Raises :class:`InvalidInput`, naming the field, for a number beyond 2^53 in magnitude or one
    whose exponent has more than two digits, however it is written.
    """
    if not _SUSPECT.search(raw):
        return True
    plain = _STRING.sub(b'""', raw)
    exponents = _EXPONENT.findall(plain)
    if max(map(len, exponents), default=0) > 2 or _any_wrong(plain):
        raise InvalidInput.of(*_first(raw))
    return len(raw) + sum(map(int, exponents)) <= room


def _any_wrong(plain: bytes) -> bool:
    """Whether any number is too large or too small. Of tens of thousands in milliseconds."""
    if any(_fault(match[0]) for match in islice(_UNUSUAL.finditer(plain), FIRST_LOOK)):
        return True
    texts: Sequence[bytes] = _UNUSUAL.findall(plain)
    sizes = [abs(float(text)) for text in texts]
    if max(sizes, default=0) > MAX_INTEGER or 0 < min(filter(None, sizes), default=1) < SMALLEST:
        return True
    # Rounded: the text tells whether it is what it seems to be.
    edges = (text for text, size in zip(texts, sizes, strict=True) if size in (0.0, MAX_INTEGER))
    return any(_fault(text) is not None for text in edges)


def _fault(text: bytes) -> str | None:
    """What is wrong with a number, if anything is."""
    exponent = _EXPONENT.search(text)
    if exponent is not None and len(exponent[1]) > 2:
        return _TOO_LONG  # as it is written, 1e007 too: an endless one is not read
    if not _NOT_ZERO.match(text):
        return None
    value = Decimal(text.decode())
    if abs(value) > MAX_INTEGER:
        return _TOO_LARGE
    return _TOO_LONG if value.adjusted() < -MAX_EXPONENT else None


def _first(raw: bytes) -> tuple[str, str]:
    """The path of the first number that is refused, and why."""
    # Of each object or array around it: the name or number of the member that is at hand.
    path: list[str | int | None] = []
    for token in islice(_TOKEN.finditer(raw), _TOKENS_TO_NAME):
        string, number, mark = token.groups()
        if number is not None:
            fault = _fault(number)
            if fault is not None:
                return ".".join(str(step) for step in path), fault
        elif string is not None:
            if path and path[-1] is None:
                path[-1] = str(json.loads(string))
        elif mark in b"{[":
            path.append(None if mark == b"{" else 0)
        elif mark in b"}]":
            path.pop()
        elif mark == b",":
            inner = path[-1]
            path[-1] = inner + 1 if isinstance(inner, int) else None
    return "body", "has a number beyond 2^53, or with an exponent of more than 2 digits"


def of_arguments(error: InvalidInput) -> InvalidInput:
    """The error of a tool's call, its fields named as the tool's caller knows them."""
    return type(error).of_fields(
        [{**one, "field": one["field"].removeprefix("params.arguments.")} for one in error.errors]
    )
