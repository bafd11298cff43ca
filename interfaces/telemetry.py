"""Logs: one JSON object a line on standard output, or something to read in a terminal (S4 5.1)."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from interfaces.plain import plain, plain_value

# The id of the request that is being served, for every line that is logged meanwhile.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure(level: str) -> None:
    """Send everything that is logged to standard output, in one form."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _add_request_id,
    ]
    terminal = sys.stdout.isatty()
    last: list[Processor] = (
        [_plain, structlog.dev.ConsoleRenderer()]
        if terminal
        else [_shape, structlog.processors.JSONRenderer(serializer=_serialize)]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What it says when all is well, the service says better itself.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("mcp").setLevel(logging.WARNING)
    # Its own lines about connections that come back by themselves tell an operator nothing.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _add_request_id(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    current = request_id.get()
    if current is not None:
        event.setdefault("request_id", current)
    return event


def _plain(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """For a terminal: what is logged may come from anybody, and must not be obeyed by it."""
    exception = event.pop("exception", None)
    shown: EventDict = {plain(str(key)): plain_value(value) for key, value in event.items()}
    if exception:
        shown["exception"] = plain(str(exception), keep="\n\t")
    return shown


def _shape(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """S4's form: what every line has at the top, the rest under ``context``."""
    top: EventDict = {
        "timestamp": event.pop("timestamp", None),
        "level": str(event.pop("level", "")).upper(),
        "message": event.pop("event", ""),
    }
    exception = event.pop("exception", None)
    top["context"] = dict(event)
    if exception:
        top["exception"] = exception
    return top


def _serialize(event: EventDict, **_: object) -> str:
    try:
        line = orjson.dumps(event, default=str).decode()
    except TypeError:  # a lone surrogate, or a number that is none of JSON's
        return json.dumps(event, default=str)
    # JSON may hold them as they are; but a log is read in a terminal as well.
    return line if line.isprintable() else "".join(map(_escaped, line))


def _escaped(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"
