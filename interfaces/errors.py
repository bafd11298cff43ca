"""One table: what an error's code is in each face."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import orjson
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
from interfaces.access.auth import Unauthorized
from interfaces.operations.following import TooManyWaiting


class PayloadTooLarge(HoldfastError):
    """The body is larger than 256 KiB."""

    code = "payload_too_large"


class MalformedRequest(HoldfastError):
    """This is not a valid HTTP request."""

    code = "malformed_request"


class UrlTooLong(HoldfastError):
    """The URL is longer than 32 KiB."""

    code = "url_too_long"


class HeadersTooLarge(HoldfastError):
    """The header is larger than 32 KiB, or has more than 100 lines."""

    code = "headers_too_large"


class RequestTimeout(HoldfastError):
    """The request did not arrive in time."""

    code = "request_timeout"


class TooManyConnections(Unavailable):
    """The service has all the connections it can take. Try again."""

    code = "too_many_connections"


class TooManyBodies(Unavailable):
    """Too many requests are being sent at the same time. Try again."""

    code = "too_many_bodies"


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
    MalformedRequest: 400,
    Unauthorized: 401,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    Conflict: 409,
    PayloadTooLarge: 413,
    UrlTooLong: 414,
    IdempotencyMismatch: 422,
    TooManyWaiting: 429,
    HeadersTooLarge: 431,
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


def reply_of(error: HoldfastError, path: str, request_id: str) -> bytes:
    """The body of every error reply, as it is sent."""
    return orjson.dumps(
        body_of(error, path, request_id),
        option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS,
        default=str,
    )


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
