"""Makes text safe to print: what agents wrote must not contain terminal control sequences."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# The joiner within an emoji, which is harmless.
_HARMLESS = "\u200d"
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Printable ASCII and most letters need no look at each character.
_SUSPECT = re.compile(r"[^\x20-\x7e\xa1-\xac\xae-\u05ff]")


def safe(value: object) -> str:
    """The value as one line; control, direction and other invisible characters are escaped."""
    return _SUSPECT.sub(lambda found: _spelled(found[0], "\\x{:02x}"), str(value))


def dumped(value: Any, indent: int | None = 2) -> str:
    """The value as JSON, with such characters escaped in JSON's own way."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _SUSPECT.sub(lambda found: found[0] if found[0] == "\n" else _spelled(found[0]), text)


def short(session_id: str) -> str:
    """The beginning of a long id, enough to name it in another command."""
    return safe(session_id) if len(session_id) <= 24 else f"{safe(session_id[:8])}..."


def compact(fields: Mapping[str, Any]) -> str:
    """A JSON object on one line, as ``name=value`` for reading."""
    return " ".join(f"{safe(name)}={_brief(value)}" for name, value in fields.items())


def _brief(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value and '"' not in value:
        return safe(value)
    return dumped(value, indent=None)


def _spelled(character: str, short_form: str = "\\u{:04x}") -> str:
    if character == _HARMLESS or unicodedata.category(character) not in _STEERING:
        return character
    code = ord(character)
    if code < 0x100:
        return short_form.format(code)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)
    return f"\\u{high:04x}\\u{low:04x}"
