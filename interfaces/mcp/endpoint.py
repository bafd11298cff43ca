"""Where MCP clients come in: HTTP's own checks, then the MCP face, which is loaded when wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import HoldfastError, InvalidInput
from interfaces.access.auth import ApiKeys
from interfaces.errors import PayloadTooLarge
from interfaces.http import body, numbers
from interfaces.http.endpoint import authenticated
from interfaces.operations import Services

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager


class McpEndpoint:
    """Lets in who has a key. Raises; :class:`~.app.App` catches.

    The MCP library takes a second to import and 30 MB to keep: a service that no MCP client ever
    calls does without.
    """

    def __init__(self, services: Services, keys: ApiKeys, hosts: Sequence[str]) -> None:
        self._services = services
        self._keys = keys
        self._hosts = hosts

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as the service runs."""
        self._wanted = asyncio.Event()
        self._face: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = authenticated(self._keys, scope, dict(scope["headers"]))
        doorkeeper = scope["state"].get("doorkeeper")
        if doorkeeper is not None:
            async with doorkeeper.room(principal.key_id):
                pass
        raw = await body.read(scope, receive)
        scope["state"]["size"] = len(raw)
        # The library does not say how numbers were written, and takes NaN for one; the tool that
        # is called answers it.
        scope["state"]["refused"] = _refused(raw)
        # A query ends when its client has gone.
        scope["state"]["receive"] = receive
        self._wanted.set()
        face = await asyncio.shield(self._face)
        await face(scope, _once(raw, receive), send)

    async def _keep(self) -> None:
        # One task enters and leaves the manager's scope, as anyio demands: no request's would do.
        await self._wanted.wait()
        try:
            manager = await asyncio.to_thread(_load, self._services, self._hosts)
            async with manager.run():
                self._face.set_result(manager.handle_request)
                await asyncio.Event().wait()
        except Exception as e:
            if self._face.done():
                raise
            self._face.set_exception(e)


def _load(services: Services, hosts: Sequence[str]) -> StreamableHTTPSessionManager:
    from interfaces.mcp import tools as mcp

    return mcp.manager(services, hosts)


def _refused(raw: bytes) -> HoldfastError | None:
    """Why HTTP would not take the body, if so; of what is no message at all no tool hears."""
    try:
        body.parse(raw)
    except InvalidInput as e:
        return numbers.of_arguments(e)
    except PayloadTooLarge as e:
        return e
    return None


def _once(raw: bytes, receive: Receive) -> Receive:
    """Receives the body that was read already, then what the connection has to say."""
    waiting: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
