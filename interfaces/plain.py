"""Text from outside, made fit for a terminal: it can neither move the cursor nor hide anything."""

from __future__ import annotations

from collections.abc import Mapping


def plain(text: str, keep: str = "") -> str:
    """The text with everything that is not printable, but for ``keep``, written as an escape.

    That is control characters (C0, DEL, C1), line and paragraph separators, marks of direction,
    other invisible characters, blanks other than the space, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def plain_value(value: object) -> object:
    """A value with every string in it made plain, keys included."""
    match value:
        case str():
            return plain(value)
        case bool() | int() | float() | None:
            return value
        case Mapping():
            return {plain(str(key)): plain_value(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain_value(item) for item in value]
        case _:
            return plain(str(value))


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
