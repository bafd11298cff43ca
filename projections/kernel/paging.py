"""Pages of lists, with cursors that stay right when rows come or go between two pages.

A cursor holds what its list is ordered by, of the last row that was seen, so that the next page
begins behind it: rows that came or went before it move nothing. It is opaque to clients, and good
for the list and the filters that it came from.

Some lists begin with what beat last. That order changes with every heartbeat, so only the first
page has it; the pages behind are in an order that stays, and leave out what the first page showed.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from domain.aggregate import Json
from domain.errors import InvalidInput

Row = dict[str, Any]

# A page of a list is at most so large, but for a row that is so alone (spec 9).
PAGE_BYTES = 8 * 1024 * 1024
# What a page of this request may take: less where the reply says everything more than once.
room: ContextVar[int] = ContextVar("room", default=PAGE_BYTES)
MAX_INTEGER = 2**63 - 1
_OPTIONS = orjson.OPT_UTC_Z


def moment(value: object) -> datetime:
    """A column of time, in a cursor. Raises ``ValueError``."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else None
    if found is None or found.tzinfo is None:
        raise ValueError
    return found


def number(value: object) -> int:
    """A column of whole numbers, in a cursor. Raises ``ValueError``."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_INTEGER:
        raise ValueError
    return value


def text(value: object) -> str:
    """A column of text, in a cursor. Raises ``ValueError``."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError
    return value


class Order(NamedTuple):
    """What a list's pages are ordered by: the columns, which together no two rows share.

    The query takes the last row's as parameters named ``past_<column>``, which are null on the
    first page. With ``seen`` the first page has another order: the name of the column whose values
    the query of the other pages leaves out, as ``mark`` of them, in its parameter ``seen``.
    """

    # Of the query, and the list's own within its read model.
    name: str
    columns: Mapping[str, Callable[[object], object]]
    # The query that counts all.
    counting: str = "count"
    seen: str | None = None
    # Tells lists of one name apart.
    of: str = ""

    def beginning(self) -> Json:
        """The parameters of the first page."""
        return {f"past_{column}": None for column in self.columns}


def mark(value: str) -> str:
    """Stands for a value among those that were seen: 64 bits of its SHA-256, in hex."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


class Page(NamedTuple):
    """Which part of a list is asked for."""

    limit: int
    offset: int = 0
    cursor: str | None = None

    def place(self, order: Order, filters: Mapping[str, object]) -> Place:
        """Where the page begins. Raises :class:`InvalidInput` for a cursor that is none of its."""
        if self.cursor is None:
            return Place(order, filters, None, ())
        try:
            scope, past, seen = orjson.loads(urlsafe_b64decode(self.cursor.encode("ascii")))
            if scope != _scope(order, filters):
                raise InvalidInput.of("cursor", "belongs to another list, or to other filters")
            if past is not None:
                kinds = order.columns.items()
                past = {c: of(value) for (c, of), value in zip(kinds, past, strict=True)}
            return Place(order, filters, past, tuple(text(one) for one in seen))
        except (ValueError, TypeError):
            raise InvalidInput.of("cursor", "is not one that a page of this list gave") from None

    def answer(self, plural: str, items: Sequence[Json], found: Found) -> Json:
        """The reply of every list (spec 9)."""
        count = fitting(items)
        has_more = found.has_more or count < len(items)
        return {
            plural: items[:count],
            "total_count": found.total,
            "limit": self.limit,
            "offset": self.offset,
            "has_more": has_more,
            "next_cursor": found.place.after(found.rows[:count], self) if has_more else None,
        }


class Place(NamedTuple):
    """Where a page begins: behind a row, and without what was seen before."""

    order: Order
    filters: Mapping[str, object]
    past: Json | None
    seen: Sequence[str]

    @property
    def parameters(self) -> Json:
        """What the query takes."""
        begun = self.order.beginning()
        if self.past is not None:
            begun = {f"past_{column}": value for column, value in self.past.items()}
        return begun if self.order.seen is None else {**begun, "seen": list(self.seen)}

    def after(self, rows: Sequence[Row], page: Page) -> str | None:
        """The cursor of the next page; None if it can only be asked for by offset."""
        if self.order.seen is not None and page.cursor is None:
            if page.offset:
                return None  # it is not known what the pages before showed
            seen = [mark(row[self.order.seen]) for row in rows]
            return _cursor(self.order, self.filters, None, seen)
        last = rows[-1]
        past = [last[column] for column in self.order.columns]
        return _cursor(self.order, self.filters, past, self.seen)


class Found(NamedTuple):
    """The rows of a page, whether more come after them, and how many there are in all."""

    rows: Sequence[Row]
    has_more: bool
    total: int
    place: Place


def _cursor(order: Order, filters: Mapping[str, object], past: object, seen: Sequence[str]) -> str:
    content = orjson.dumps([_scope(order, filters), past, seen], option=_OPTIONS)
    return urlsafe_b64encode(content).decode()


def _scope(order: Order, filters: Mapping[str, object]) -> str:
    given = orjson.dumps([order.of, order.name, filters], option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(given).hexdigest()[:16]


def fitting(items: Sequence[Json]) -> int:
    """How many of a page's entries go into one reply: one at least, if there is one."""
    left = room.get()
    for count, item in enumerate(items):
        left -= len(orjson.dumps(item, option=_OPTIONS)) + 1
        if left < 0 and count:
            return count
    return len(items)
