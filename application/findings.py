"""Pydantic's validation errors as the product's field errors."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from domain.errors import FieldError


def findings(error: ValidationError, within: Sequence[str] = ()) -> list[FieldError]:
    """One error per wrong field. ``within`` is the path of the object that was validated."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        {
            "field": ".".join((*within, *map(str, one["loc"]))) or "body",
            "message": _in_words(one["type"], one["msg"]),
        }
        for one in found
    ]


def _in_words(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field of this request"
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
