from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from interfaces import telemetry
from interfaces.plain import plain

EVIL = {
    "an escape": "\x1b[31mred\x1b]0;title\x07",
    "a C1 control": "\x9b31m",
    "DEL": "\x7f",
    "a bell and a backspace": "a\x07\x08",
    "a new line": "ok\n2026-01-01 [info] forged",
    "a carriage return": "ok\rforged",
    "a line separator": "a\u2028b\u2029c\x85d",
    "marks of direction": "\u202eevil\u202c\u2066x\u2069\u200f",
    "invisible": "a\u200bb\ufeffc\u00add\U000e0041",
    "a lone surrogate": "a\ud800b",
}
# What structlog's own renderer colours a terminal's lines with.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# A new line is at the end of each line, and within a traceback.
UNSEEN = [
    chr(n)
    for n in (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0x200B)
]


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_nothing_that_a_terminal_would_obey_is_left(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize("text", ["", "plain", "проект 日本語 🚀 é", "[bold]"])
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "json"])
@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_a_log_obeys_nobody(
    text: str,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers = root.handlers[:]
    told = [root, *map(logging.getLogger, ("uvicorn", "mcp", "psycopg.pool"))]
    levels = [logger.level for logger in told]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    facts = {"project": text, "nested": {"deep": [text], text: 1}, "odd": Odd(text)}
    try:
        telemetry.configure("info")
        logging.getLogger("holdfast.test").warning(f"said {text}", extra=facts)
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("holdfast.test").exception("failed")
    finally:
        root.handlers[:] = handlers
        for logger, level in zip(told, levels, strict=True):
            logger.setLevel(level)
    out = capsys.readouterr().out
    colourless = COLOURS.sub("", out)
    assert not {char for char in UNSEEN if char in colourless}
    if terminal:
        assert f"said {plain(text)}" in colourless
    else:
        assert "\x1b" not in out
        assert json.loads(out.splitlines()[0])["context"]["project"] == text


class Odd:
    """A value that only has a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text
