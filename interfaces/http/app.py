"""The ASGI application: routes from the operations table, one catch for every error."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

import orjson
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from domain.errors import HoldfastError
from interfaces import telemetry
from interfaces.access.auth import ApiKeys
from interfaces.errors import Internal, MethodNotAllowed, NoSuchPath, reply_of, status_of
from interfaces.http.doorkeeper import Doorkeeper, Limits
from interfaces.http.endpoint import Endpoint, respond
from interfaces.http.leaving import ClientGone
from interfaces.http.openapi import document
from interfaces.mcp.endpoint import McpEndpoint
from interfaces.operations import OPERATIONS, Services

# So long without its database a process still calls itself ok: a restart is no news.
DEGRADED_SECONDS = 10.0
# A reply that is larger goes out in pieces of this size, each when those before have left.
PIECE = 64 * 1024

log = logging.getLogger("holdfast.http")


class Running(Services, Protocol):
    """What the application starts, serves with, and stops."""

    @property
    def keys(self) -> ApiKeys: ...
    @property
    def hosts(self) -> Sequence[str]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def absent_seconds(self) -> float: ...
    @property
    def dead_letters(self) -> int: ...
    async def start(self) -> None:
        """Be ready to serve."""

    def closing(self) -> None:
        """See to it that whoever waits for an answer has one before the shutdown is over."""

    async def stop(self) -> None:
        """Finish what was accepted."""


class App:
    """Gives every request its id, and turns every error into the one error reply."""

    def __init__(self, service: Running) -> None:
        mcp = McpEndpoint(service, service.keys, service.hosts)
        self._doorkeeper = Doorkeeper(service.limits, service.closing)
        self._routes = _routes(service, mcp)
        self._router = Router(
            routes=self._routes,
            redirect_slashes=False,
            lifespan=_lifespan(service, mcp, self._doorkeeper),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The server hands this on to every connection (:class:`~.protocol.Connection`).
            scope.setdefault("state", {})["doorkeeper"] = self._doorkeeper
            await self._router(scope, receive, send)
            return
        request_id = _new_id()
        telemetry.request_id.set(request_id)
        # The router reports unknown paths and methods as exceptions only if there is an app.
        scope["app"] = self
        scope.setdefault("state", {})["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append(header)
            elif len(message.get("body", b"")) > PIECE and "principal" in scope["state"]:
                await self._send_in_pieces(message, scope, send)
                return
            await send(message)

        try:
            await self._router(scope, receive, send_with_id)
        except ClientGone:
            return
        except Exception as e:
            if started:
                raise
            await self._refuse(e, scope, send_with_id)

    async def _send_in_pieces(self, message: Message, scope: Scope, send: Send) -> None:
        """Send a large reply no faster than it is read, and count it for as long."""
        content = memoryview(message["body"])
        who = scope["state"]["principal"].key_id
        async with self._doorkeeper.sending(who, len(content)):
            for begin in range(0, len(content), PIECE):
                piece = content[begin : begin + PIECE]
                more = begin + PIECE < len(content) or message.get("more_body", False)
                await send({"type": "http.response.body", "body": piece, "more_body": more})

    # In a frame of its own: the error's traceback has the frame that caught it, and would be kept
    # with all of the request, until the collector comes by, if that frame had the error too.
    async def _refuse(self, raised: Exception, scope: Scope, send: Send) -> None:
        error = _known(raised)
        if isinstance(error, Internal):
            log.error("request_failed", exc_info=raised, extra={"path": scope["path"]})
        content = reply_of(error, scope["path"], scope["state"]["request_id"])
        await respond(send, status_of(error), content, self._headers(error, scope))

    def _headers(self, error: HoldfastError, scope: Scope) -> list[tuple[bytes, bytes]]:
        match status_of(error):
            case HTTPStatus.UNAUTHORIZED:
                return [(b"www-authenticate", b'ApiKey realm="holdfast"')]
            case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
                return [(b"retry-after", b"1")]
            case HTTPStatus.METHOD_NOT_ALLOWED:
                # A path may be several rows of the table; the router names the first one's verb.
                here = (r for r in self._routes if r.path_regex.match(scope["path"]))
                verbs = {verb for route in here for verb in route.methods or ()}
                return [(b"allow", ", ".join(sorted(verbs)).encode())]
        return []


def _new_id() -> str:
    """A random UUID. Nobody has to be unable to guess it, so it costs no system call."""
    digits = f"{random.getrandbits(128):032x}"
    kind = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{kind}{digits[17:20]}-{digits[20:]}"


def _known(error: Exception) -> HoldfastError:
    match error:
        case HoldfastError():
            return error
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return NoSuchPath()
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            return MethodNotAllowed()
        case _:
            return Internal()


class _AnyText(PathConvertor):
    """What ``{id:path}`` matches: a line break too, which ids from before could have."""

    regex = "(?s:.*)"


def _routes(service: Running, mcp: McpEndpoint) -> list[Route]:
    register_url_convertor("path", _AnyText())
    routes = [
        Route(
            operation.path,
            endpoint=Endpoint(operation, service, service.keys),
            methods=[operation.verb],
            name=operation.name,
        )
        for operation in OPERATIONS
    ]
    # There are no sessions to end (DELETE), and a stream without one (GET) would stay open, and
    # silent, until the client goes: it would only hold up a shutdown.
    routes.append(Route("/mcp", mcp, methods=["POST"]))
    routes.append(Route("/health", _health(service, time.monotonic()), methods=["GET"]))
    routes.append(Route("/api/docs", _docs(), methods=["GET"]))
    return routes


def _health(service: Running, started: float) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        """Open to all: whether the process serves (S4 5.3.a), and for how long without database."""
        absent = service.absent_seconds
        value: dict[str, object] = {
            "status": "degraded" if absent > DEGRADED_SECONDS else "ok",
            "timestamp": datetime.now(UTC),
            "uptime": round(time.monotonic() - started, 3),
            "database": "away" if absent else "ok",
        }
        if absent:
            value["database_away_seconds"] = round(absent, 1)
        if service.dead_letters:
            value["dead_letters"] = service.dead_letters
        return _json(value)

    return health


def _docs() -> Callable[[Request], Awaitable[Response]]:
    described = orjson.dumps(document())

    async def docs(request: Request) -> Response:
        """Open to all: the OpenAPI document (S4 1.2.f)."""
        return Response(described, media_type="application/json")

    return docs


def _json(value: object) -> Response:
    content = orjson.dumps(value, option=orjson.OPT_UTC_Z)
    return Response(content, media_type="application/json")


def _lifespan(
    service: Running, mcp: McpEndpoint, doorkeeper: Doorkeeper
) -> Callable[[object], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        await service.start()
        try:
            async with mcp.running(), doorkeeper.watching():
                yield
        finally:
            await service.stop()

    return lifespan
