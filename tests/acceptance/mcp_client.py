"""The MCP library's own client, so that a test reads from top to bottom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx2
import orjson
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ListToolsResult, TextContent

from tests.acceptance.serving import Api, Json, is_uuid4

T = TypeVar("T")

# How the client begins: by the handshake of old, or by asking what the server speaks.
LEGACY, MODERN = "legacy", "auto"


class Mcp:
    """A client with the key of an :class:`Api`. Each call has a connection of its own."""

    def __init__(self, api: Api, mode: str, headers: dict[str, str] | None = None) -> None:
        self._url = str(api.base_url.join("/mcp"))
        self._headers = headers or {"X-API-Key": api.key or ""}
        self._mode = mode

    def call(self, tool: str, **arguments: object) -> Json:
        """A tool's answer, which must not be an error; its text says the same."""
        result = self.attempt(tool, **arguments)
        assert not result.is_error, result
        return _content(result)

    def refused(self, tool: str, code: str, *fields: str, **arguments: object) -> Json:
        """A tool's error, which must have this code and name exactly these fields."""
        result = self.attempt(tool, **arguments)
        assert result.is_error, result
        told = _content(result)
        assert told["code"] == code, told
        assert {error["field"] for error in told.get("errors", ())} == set(fields), told
        assert told["message"]
        assert is_uuid4(told["request_id"])
        return told

    def attempt(self, tool: str, **arguments: object) -> CallToolResult:
        """Whatever a tool answers."""
        return self._connected(lambda client: client.call_tool(tool, arguments))

    def tools(self) -> ListToolsResult:
        """The tools that there are."""
        return self._connected(lambda client: client.list_tools())

    def instructions(self) -> str:
        """What the server tells a model of itself."""

        async def read(client: Client) -> str:
            return client.instructions or ""

        return self._connected(read)

    def protocol(self) -> str:
        """The version of the protocol that client and server settled on."""

        async def read(client: Client) -> str:
            return client.protocol_version

        return self._connected(read)

    def _connected(self, use: Callable[[Client], Awaitable[T]]) -> T:
        async def connect() -> T | MCPError:
            carrier = httpx2.AsyncClient(headers=self._headers, timeout=30, trust_env=False)
            async with carrier:
                transport = streamable_http_client(self._url, http_client=carrier)
                async with Client(transport, mode=self._mode, cache=None) as client:
                    try:
                        return await use(client)
                    except MCPError as e:  # would come out of here in a group within a group
                        return e

        outcome = asyncio.run(connect())
        if isinstance(outcome, MCPError):
            raise outcome
        return outcome


def _content(result: CallToolResult) -> Json:
    (text,) = result.content
    assert isinstance(text, TextContent)
    content: Json = orjson.loads(text.text)
    assert content == result.structured_content
    return content
