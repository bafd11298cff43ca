"""The errors that calls raise, by what the caller can do about them.

The tree::

    HoldfastError
    ├── InvalidInput          change the request: a field is wrong, too large, or unknown
    ├── Unauthorized          give a valid key
    │   └── Forbidden         give a key that may do this
    ├── NotFound              it does not exist, or no longer
    ├── Conflict              the current state does not allow it; ``code`` and ``details`` say why
    ├── Unavailable           nothing is wrong with the request; try again later
    │   ├── Unreachable       no reply: connection refused, broken, timed out
    │   └── RateLimited       too many requests; ``retry_after`` says how long to wait
    ├── ServiceFault          the service has a defect; ``request_id`` finds it in the log
    └── ConfigurationError    a setting on this side is missing or wrong

Each class has the exit code of the command line (spec 11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict


class FieldError(TypedDict):
    """One field that was refused: its dotted path and why."""

    field: str
    message: str


class HoldfastError(Exception):
    """The request was not carried out.

    ``status`` is the HTTP status (``None`` if there was no reply), ``code`` the service's stable
    code, ``details`` and ``errors`` say more, and ``request_id`` is the request's id in its log.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code or self.default_code
        self.details: dict[str, Any] = dict(details or {})
        self.errors = list(errors)
        self.request_id = request_id


class InvalidInput(HoldfastError):
    """The request itself is wrong (400, 405, 413, 422); ``errors`` names the fields."""

    exit_code = 2
    default_code = "invalid_input"


class ConfigurationError(HoldfastError):
    """A setting on this side is missing or wrong."""

    exit_code = 2
    default_code = "configuration"


class Conflict(HoldfastError):
    """The request is valid, but the current state does not allow it (409)."""

    exit_code = 3
    default_code = "conflict"


class NotFound(HoldfastError):
    """It does not exist, or no longer (404)."""

    exit_code = 4
    default_code = "not_found"


class Unauthorized(HoldfastError):
    """The service does not accept the API key (401)."""

    exit_code = 5
    default_code = "unauthorized"


class Forbidden(Unauthorized):
    """The API key does not permit this (403)."""

    default_code = "forbidden"


class Unavailable(HoldfastError):
    """The service cannot answer now (502-504), or something else answers at its address."""

    exit_code = 6
    default_code = "unavailable"
    # How many seconds to wait before the next attempt, if the service says so.
    retry_after: float | None = None


class Unreachable(Unavailable):
    """There was no reply."""

    default_code = "unreachable"


class RateLimited(Unavailable):
    """Too many requests (429)."""

    default_code = "rate_limited"


class ServiceFault(HoldfastError):
    """The service has a defect (500)."""

    default_code = "service_fault"


_BY_STATUS: Mapping[int, type[HoldfastError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

_KEY_ADVICE = (
    "set HOLDFAST_API_KEY to a key of the service (a development service prints its key at start)"
)


# The service's own are a sentence or two.
LONGEST_MESSAGE = 4_000
# No gateway lets so little not pass.
SMALL_BYTES = 64 * 1024


def of_reply(
    status: int, body: object, request_id: str | None, url: str, sent: int = 0
) -> HoldfastError:
    """The error that a reply of 300 and above to so many bytes stands for.

    Every error of the service has a code, a message and the request's id, and repeats its status:
    what has not refuses nothing.
    """
    if not isinstance(body, dict) or not _is_ours(status, body, request_id):
        return of_something_else(status, url, request_id, sent=sent)
    cls = _BY_STATUS.get(status) or (InvalidInput if 400 <= status < 500 else ServiceFault)
    message = body["message"][:LONGEST_MESSAGE]
    if cls is Unauthorized:
        message = f"{message}: {_KEY_ADVICE}"
    details = body.get("details")
    return cls(
        message,
        status=status,
        code=body["code"],
        details=details if isinstance(details, dict) else None,
        errors=_fields(body.get("errors")),
        request_id=_text(body.get("request_id")) or request_id,
    )


def _is_ours(status: int, body: Mapping[str, object], request_id: str | None) -> bool:
    return (
        status >= 400
        and body.get("statusCode", status) == status
        and all(isinstance(body.get(name), str) for name in ("code", "message"))
        and (request_id or _text(body.get("request_id"))) is not None
    )


def _fields(found: object) -> list[FieldError]:
    return [
        {"field": str(one["field"]), "message": str(one.get("message", ""))}
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and "field" in one
    ]


def _text(found: object) -> str | None:
    return found if isinstance(found, str) else None


def malformed_key() -> Unauthorized:
    """What the service says of a key that no request could even carry."""
    return Unauthorized(f"Malformed API key: {_KEY_ADVICE}")


def of_something_else(
    status: int,
    url: str,
    request_id: str | None = None,
    why: str | None = None,
    *,
    sent: int = 0,
) -> HoldfastError:
    """A reply that is none of the service's: of a gateway, say, that has nothing behind it.

    It refuses nothing, whatever its status; but what is too large for it stays so, if it is large
    at all: ``sent`` are the bytes that it was sent.
    """
    is_large = status == 413 and sent > SMALL_BYTES
    cls = InvalidInput if is_large else _BY_STATUS.get(status, Unavailable)
    if not issubclass(cls, InvalidInput | Unavailable):
        cls = Unavailable
    because = f" ({why})" if why else ""
    return cls(
        f"Something else answers at {url}: {status}, but not as the service does{because};"
        " is it a holdfast service?",
        status=status,
        request_id=request_id,
    )
