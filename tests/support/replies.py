"""Replies held against their models in the operations table: every field, and no other."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter

from interfaces.operations import OPERATIONS, Operation
from interfaces.replies.base import Health


def check_reply(verb: str, path: str, status: int, content: bytes) -> None:
    """Raise ``AssertionError`` unless a success is what the operation's model says, strictly.

    ``path`` is decoded. What is no operation's, and errors, which have a shape of their own, pass.
    """
    if not 200 <= status < 300:
        return
    if path == "/health":
        _require(Health, path, content)
    operation = operation_of(verb, path)
    if operation is None:
        return
    if operation.reply is None or status == 204:
        assert (status, content) == (204, b""), f"{operation.name}: {status} {content!r}"
        assert operation.reply is None or operation.may_be_empty, operation.name
        return
    assert status in (operation.status, 200), f"{operation.name}: {status}"
    _require(operation.reply, operation.name, content)


def operation_of(verb: str, path: str) -> Operation | None:
    """The operation that serves a request: the first that matches, as the service looks for it."""
    for operation, pattern in _PATTERNS.get(verb, ()):
        if pattern.fullmatch(path):
            return operation
    return None


def _require(reply: type[Any], name: str, content: bytes) -> None:
    # Making one takes longer than a request.
    if reply not in _MODELS:
        _MODELS[reply] = TypeAdapter(reply)
    try:
        _MODELS[reply].validate_json(content, strict=True, extra="forbid")
    except ValueError as e:
        raise AssertionError(f"{name}: {e}\n{content[:2_000].decode()}") from None


def _pattern(path: str) -> re.Pattern[str]:
    # Between parameters, which are ``{name}`` or ``{name:path}``, a path has plain characters.
    parts = re.split(r"\{\w+(:path)?\}", path)
    kinds = [".+" if kind else "[^/]+" for kind in parts[1::2]]
    texts = [re.escape(text) for text in parts[::2]]
    pattern = texts[0] + "".join(k + t for k, t in zip(kinds, texts[1:], strict=True))
    return re.compile(pattern, re.DOTALL)


_MODELS: dict[type[Any], TypeAdapter[Any]] = {}
_PATTERNS: dict[str, list[tuple[Operation, re.Pattern[str]]]] = {}
for _operation in OPERATIONS:
    _PATTERNS.setdefault(_operation.verb, []).append((_operation, _pattern(_operation.path)))
