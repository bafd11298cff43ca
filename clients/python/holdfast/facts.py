"""What this machine says of itself, made fit to be recorded: optional facts never stop the work."""

from __future__ import annotations

import re

# The service takes as many characters of a path or a terminal's name.
LONGEST = 1_000
# Of what is too long the end tells more than the beginning.
HEAD = 300

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def fact(text: str, longest: int = LONGEST) -> str | None:
    """The text, spelled out where it is none, shortened in its middle; ``None`` if it is blank."""
    shown = spelled(text).strip()
    if len(shown) > longest:
        head = min(HEAD, longest // 3)
        shown = f"{shown[:head]}…{shown[head + 1 - longest :]}"
    return shown or None


def spelled(text: str) -> str:
    """With control characters, and bytes that are no text, spelled out: ``\\xff``."""
    return _CONTROL.sub(lambda found: _code(ord(found[0])), text)


def _code(number: int) -> str:
    # Bytes that are no text reach Python as halves of surrogate pairs.
    if 0xDC80 <= number <= 0xDCFF:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
