"""How a command reports an error, and with which exit code it ends.

Each class of :mod:`holdfast.errors` has its exit code: 1 failed, 2 usage, 3 conflict, 4 not found,
5 not authorised, 6 service unavailable. Some codes get another class here than over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from holdfast.cli.streams import complain
from holdfast.cli.text import dumped, safe
from holdfast.errors import (
    Conflict,
    HoldfastError,
    InvalidInput,
    NotFound,
    ServiceFault,
    Unreachable,
)

# The user named these on the command line; in an HTTP request they are fields or parts of a path.
AT_A_DESK: dict[str, type[HoldfastError]] = {
    "unknown_session": NotFound,
    "unknown_instance": NotFound,
    "not_recoverable": Conflict,
    "ambiguous": InvalidInput,
}


@contextmanager
def exit_code(as_json: bool = False) -> Iterator[None]:
    """Print an error of the block on stderr and end the command with its exit code."""
    try:
        yield
    except HoldfastError as error:
        complain(dumped(described(error)) if as_json else told(error))
        raise typer.Exit(AT_A_DESK.get(error.code, type(error)).exit_code) from None


def note(line: str) -> None:
    """Print a line for people on stderr, unless stderr is closed."""
    complain(f"holdfast: {safe(line)}")


def told(error: HoldfastError) -> str:
    """The error and what to do about it, on one line if possible."""
    message = error.message
    if isinstance(error, Unreachable):
        message += ". Start it with `holdfast-server serve`, or set HOLDFAST_URL to its address."
    if isinstance(error, ServiceFault) and error.request_id:
        message += f" (request {error.request_id} in the service's log)"
    lines = [f"holdfast: {safe(message)}"]
    fields = [f"{e['field']}: {e['message']}" for e in error.errors]
    # The message names the fields already, unless it is about something else.
    if message != "; ".join(fields):
        lines += [f"  {safe(field)}" for field in fields]
    elif len(fields) > 1:
        lines = ["holdfast:", *(f"  {safe(field)}" for field in fields)]
    return "\n".join(lines)


def described(error: HoldfastError) -> dict[str, Any]:
    """The error in the service's JSON form; ``statusCode`` is null if it did not answer."""
    return {
        "statusCode": error.status,
        "code": error.code,
        "message": error.message,
        "request_id": error.request_id,
        "errors": error.errors,
        "details": error.details,
    }
