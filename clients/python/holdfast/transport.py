"""Requests to the service, repeated while that can help."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from holdfast.additions import Unknown
from holdfast.address import shown
from holdfast.errors import (
    HoldfastError,
    InvalidInput,
    Unavailable,
    Unreachable,
    of_reply,
    of_something_else,
)
from holdfast.exchange import Answer, Exchange, Unusable
from holdfast.replies import fault_of, parsed
from holdfast.request import Params, Request, dumped, is_of_service, new_key
from holdfast.settings import key_header

DEFAULT_TIMEOUT_SECONDS = 10.0
# After a first attempt that failed (S4 4.3).
DEFAULT_RETRIES = 3
DEFAULT_PATIENCE_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# Nobody is left alone for longer than this, whoever asks for it.
LONGEST_RETRY_AFTER_SECONDS = 3600.0
# The service counts events in 53 bits.
POSITION_DIGITS = 16
# Answered whoever asks.
KEYLESS = frozenset({"/health", "/api/docs"})


class Reply(NamedTuple):
    """A successful reply: its body (``None`` for 204) and the position of its last event."""

    status: int
    body: Any
    position: int | None = None


class Transport:
    """A connection pool to one service. May be used by any number of threads."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retries: int = DEFAULT_RETRIES,
        patience: float = DEFAULT_PATIENCE_SECONDS,
    ) -> None:
        self.url = shown(url)
        self._api_key = api_key
        self._retries = retries
        self._patience = patience
        self._closing = threading.Event()
        self._exchange = Exchange(url, timeout)
        self._unknown = Unknown()

    def send(
        self,
        request: Request,
        *,
        retries: int | None = None,
        patience: float | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Send a request; again after connection errors, 429 and 502-504, with the same key.

        ``retries`` is how often again, ``patience`` after how many seconds not any more,
        ``timeout`` how long one attempt may take, to the last byte of its reply. Raises
        :class:`HoldfastError`: also :class:`Unavailable` if what answered is not the service.

        A field that the client added and the service does not know is left out
        (:mod:`holdfast.additions`).
        """
        left = self._retries if retries is None else retries
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        if request.method != "GET" and request.idempotency_key is None:
            request = request._replace(idempotency_key=new_key())
        request = self._unknown.without(request)
        try:
            return self._repeated(request, left, deadline, timeout)
        except InvalidInput as error:
            less = self._unknown.without_refused(request, error)
            if less is None:
                raise
        return self._repeated(less, left, deadline, timeout)

    def _repeated(
        self, request: Request, left: int, deadline: float, timeout: float | None
    ) -> Reply:
        for attempt in range(left + 1):
            try:
                return self._once(request, timeout)
            except Unavailable as error:
                pause = _pause(attempt, error)
                if attempt == left or time.monotonic() + pause > deadline:
                    raise
            if self._closing.wait(pause):
                raise Unreachable("The client was closed.")
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close all connections; requests that wait for another attempt give up."""
        self._closing.set()
        self._exchange.close()

    def _once(self, request: Request, timeout: float | None) -> Reply:
        if self._closing.is_set():
            raise Unreachable("The client was closed.")
        if not is_of_service(request.path):
            raise InvalidInput(f"{request.path!r} is no path of the service.", code="no_such_path")
        headers = {} if request.path in KEYLESS else key_header(self._api_key)
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.idempotency_key is not None:
            headers["Idempotency-Key"] = request.idempotency_key
        content = None if request.body is None else _dumped(request.body)
        try:
            answer = self._exchange.ask(
                request.method,
                request.path,
                content=content,
                params=_parameters(request.params) if request.params else None,
                headers=headers,
                timeout=timeout,
            )
        except httpx.LocalProtocolError as e:
            raise InvalidInput(f"This cannot be asked for: {e}") from e
        except httpx.RequestError as e:
            self._unknown.forget()
            reason = str(e) or type(e).__name__
            raise Unreachable(f"{self.url} cannot be reached: {reason}") from e
        except Unusable as e:
            raise of_something_else(e.status, self.url, why=e.why) from e
        except ValueError as e:
            raise InvalidInput(f"This cannot be asked for: {e}") from e
        return self._read(request, answer, len(content or b""))

    def _read(self, request: Request, answer: Answer, sent: int) -> Reply:
        """What the service says. Raises, also if it is not the service that says it."""
        request_id = answer.headers.get("x-request-id")
        body, fault = None, None
        try:
            body = parsed(answer.content) if answer.content else None
        except ValueError as e:
            fault = str(e)
        if not answer.is_success:
            raise _refusal(answer, body, request_id, self.url, sent)
        position = _position(answer.headers.get("x-event-position"))
        fault = fault or fault_of(request.method, request.path, body)
        if fault is None and request.method != "GET" and (position is None or not request_id):
            # A reply without a body says nothing else of what it is.
            fault = "it does not say which event it led to"
        if fault is not None:
            raise of_something_else(answer.status, self.url, request_id, fault)
        return Reply(answer.status, body, position)


def _refusal(
    answer: Answer, body: object, request_id: str | None, url: str, sent: int
) -> HoldfastError:
    error = of_reply(answer.status, body, request_id, url, sent)
    if isinstance(error, Unavailable):
        error.retry_after = _seconds(answer.headers.get("retry-after"))
    return error


def _position(header: str | None) -> int | None:
    if header is None or not header.isascii() or not header.isdecimal():
        return None
    return int(header) if len(header) <= POSITION_DIGITS else None


def _dumped(body: Mapping[str, Any]) -> bytes:
    try:
        return dumped(body).encode()
    except (TypeError, ValueError) as e:
        raise InvalidInput(f"The body is not JSON: {e}") from e


def _parameters(params: Params) -> httpx.QueryParams:
    flat: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in params.items():
        if value is None:
            continue
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for one in value if several else [value]:  # type: ignore[union-attr]
            if isinstance(one, str):
                _require_text(name, one)
            flat.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return httpx.QueryParams(flat)


def _require_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{name}: {value!r} is not text.") from None


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header else math.nan
    except ValueError:
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _pause(attempt: int, error: Unavailable) -> float:
    """Twice as long each time, jittered so that a fleet does not knock in step."""
    pause = min(FIRST_PAUSE_SECONDS * 2.0**attempt, LONGEST_PAUSE_SECONDS)
    jittered = pause * random.uniform(0.5, 1.0)
    if error.retry_after is not None:
        return error.retry_after + jittered
    return jittered
