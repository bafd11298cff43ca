"""Errors as HTTP and MCP replies: one table maps each error to its status."""

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
    """The headers are larger than 32 KiB in all, or there are more than 100."""

    code = "headers_too_large"


class RequestTimeout(HoldfastError):
    """The request did not arrive in time."""

    code = "request_timeout"


class TooManyConnections(Unavailable):
    """The service has reached its limit of connections. Try again later."""

    code = "too_many_connections"


class TooManyBodies(Unavailable):
    """Too many request bodies are being received at once. Try again later."""

    code = "too_many_bodies"


class MethodNotAllowed(HoldfastError):
    """This path does not support that method."""

    code = "method_not_allowed"


class NoSuchPath(NotFound):
    """There is nothing at this path."""

    code = "no_such_path"


class Internal(HoldfastError):
    """Internal error. The service's log has the cause under this request id."""

    code = "internal_error"


# The first class in this order that an error is an instance of gives its status.
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
    """The body of every HTTP error reply (S4 5.2, spec 9)."""
    status = status_of(error)
    return {
        "statusCode": status,
        "error": HTTPStatus(status).phrase,
        **tool_error_of(error, request_id),
        "timestamp": datetime.now(UTC),
        "path": path,
    }


def reply_of(error: HoldfastError, path: str, request_id: str) -> bytes:
    """The body of every HTTP error reply, encoded as JSON."""
    return orjson.dumps(
        body_of(error, path, request_id),
        option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS,
        default=str,
    )


def tool_error_of(error: HoldfastError, request_id: str) -> Json:
    """The body of an MCP tool's error: what a model needs to correct the call, or to report it."""
    told: Json = {"code": error.code, "message": error.message, "request_id": request_id}
    if error.errors:
        told["errors"] = error.errors
    if error.details:
        told["details"] = error.details
    return told


def invalid(error: ValidationError) -> InvalidInput:
    """Pydantic's errors as :class:`InvalidInput`, field by field."""
    return InvalidInput.of_fields(findings(error))
