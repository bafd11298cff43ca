"""One table: what an error's code is in each face."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from pydantic import ValidationError

from application.findings import findings
from domain.aggregate import Json
from domain.errors import (
    Conflict,
    HoldfastError,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    TimedOut,
    Unavailable,
)
from interfaces.auth import Unauthorized


class PayloadTooLarge(HoldfastError):
    """The body is larger than 256 KiB."""

    code = "payload_too_large"


class MethodNotAllowed(HoldfastError):
    """This path does not take that method."""

    code = "method_not_allowed"


class NoSuchPath(NotFound):
    """There is nothing at this path."""

    code = "no_such_path"


class Internal(HoldfastError):
    """Something went wrong inside the service. The request id leads to the log."""

    code = "internal_error"


# The first class that an error belongs to tells its status.
STATUS: Mapping[type[HoldfastError], int] = {
    InvalidInput: 400,
    Unauthorized: 401,
    NotFound: 404,
    MethodNotAllowed: 405,
    Conflict: 409,
    PayloadTooLarge: 413,
    IdempotencyMismatch: 422,
    TimedOut: 504,
    Unavailable: 503,
    HoldfastError: 500,
}


def status_of(error: HoldfastError) -> int:
    """The HTTP status of an error."""
    return next(status for cls, status in STATUS.items() if isinstance(error, cls))


def body_of(error: HoldfastError, path: str, request_id: str) -> Json:
    """The body of every error reply (S4 5.2, spec 9)."""
    status = status_of(error)
    return {
        "statusCode": status,
        "error": HTTPStatus(status).phrase,
        **tool_error_of(error, request_id),
        "timestamp": datetime.now(UTC),
        "path": path,
    }


def tool_error_of(error: HoldfastError, request_id: str) -> Json:
    """What a model is told of an error: as much as it needs to do better, or to report it."""
    told: Json = {"code": error.code, "message": error.message, "request_id": request_id}
    if error.errors:
        told["errors"] = error.errors
    if error.details:
        told["details"] = error.details
    return told


def invalid(error: ValidationError) -> InvalidInput:
    """Pydantic's findings as the product's error: each field, and why."""
    return InvalidInput.of_fields(findings(error))
