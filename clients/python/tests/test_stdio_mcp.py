"""``holdfast mcp``: the same tools by stdio, with the MCP library's own client (spec 10)."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.mcp_client import LEGACY, MODERN, Mcp
from tests.acceptance.serving import Api, Json, Server, cloned, name, ok
from tests.support.proxy import HttpWire, http_wire
from tests.support.waiting import eventually

MODES = [MODERN, LEGACY]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """How the client begins: both protocols, old and new."""
    return str(request.param)


@asynccontextmanager
async def connected(api: Api, mode: str, url: str | None = None) -> AsyncIterator[Client]:
    """A client whose server is ``holdfast mcp``."""
    environ = {
        "HOLDFAST_URL": url or str(api.base_url).rstrip("/"),
        "HOLDFAST_API_KEY": api.key or "",
    }
    parameters = StdioServerParameters(command=HOLDFAST, args=["mcp"], env=environ)
    async with Client(stdio_client(parameters), mode=mode, cache=None) as client:
        yield client


def content(result: CallToolResult) -> Json:
    """What a tool answered, as text and as structure."""
    [text] = result.content
    assert isinstance(text, TextContent)
    told: Json = json.loads(text.text)
    assert told == result.structured_content
    return told


async def register(client: Client, project: str) -> Json:
    arguments = {"project": project, "instance_type": "PS"}
    result = await client.call_tool("mcp_meta_register_instance", arguments)
    assert not result.is_error
    return content(result)


def test_the_tools_are_those_of_http(api: Api, mode: str) -> None:
    async def ask() -> tuple[Json, str, str]:
        async with connected(api, mode) as client:
            tools = await client.list_tools()
            return tools.model_dump(), client.instructions or "", client.protocol_version

    over_http = Mcp(api, mode)
    tools, instructions, version = asyncio.run(ask())
    assert tools["tools"] == over_http.tools().model_dump()["tools"]
    assert len(tools["tools"]) > 8
    assert instructions == over_http.instructions()
    assert version == over_http.protocol()


def test_a_tool_does_the_same_as_over_http_and_says_the_same_when_refused(
    api: Api, mode: str
) -> None:
    project = name("project")

    async def work() -> tuple[Json, Json]:
        async with connected(api, mode) as client:
            registered = await register(client, project)
            emitted = await client.call_tool(
                "mcp_meta_emit_event",
                {
                    "instance_id": registered["instance_id"],
                    "event_type": "epic_started",
                    "event_data": {"epic_id": "Grüße — 日本 \u2028"},
                },
            )
            assert not emitted.is_error
            wrong = await client.call_tool("mcp_meta_emit_event", {"instance_id": "x"})
            assert wrong.is_error
            return registered, content(wrong)

    registered, wrong = asyncio.run(work())
    path = f"/api/instances/{registered['instance_id']}/events"
    events = ok(api.get(path, params={"event_type": "epic_started"}))["events"]
    assert [e["event_data"]["epic_id"] for e in events] == ["Grüße — 日本 \u2028"]
    over_http = Mcp(api, mode).attempt("mcp_meta_emit_event", instance_id="x")
    told = content(over_http)
    assert {**wrong, "request_id": "", "timestamp": ""} == {
        **told,
        "request_id": "",
        "timestamp": "",
    }


def test_many_calls_at_once_are_each_answered(api: Api, mode: str) -> None:
    projects = [name("project") for _ in range(60)]

    async def work() -> list[Json]:
        async with connected(api, mode) as client:
            return list(await asyncio.gather(*(register(client, p) for p in projects)))

    registered = asyncio.run(work())
    assert [instance["project"] for instance in registered] == projects
    assert len({instance["instance_id"] for instance in registered}) == len(projects)


def test_while_the_service_is_away_a_call_says_so_and_later_ones_work_again(
    api: Api, wire: HttpWire, mode: str
) -> None:
    async def work() -> str:
        async with connected(api, mode, wire.url) as client:
            first = await register(client, "odin")
            wire.down()
            with pytest.raises(MCPError) as refused:
                await register(client, "odin")
            wire.up()
            second = await register(client, "odin")
            assert first["instance_id"] != second["instance_id"]
            return str(refused.value)

    told = asyncio.run(work())
    assert wire.url in told
    assert "try again later" in told
    assert len(ok(api.get("/api/instances"))["instances"]) == 2


def test_a_call_that_the_service_died_of_may_have_been_carried_out_and_is_not_repeated(
    api: Api, wire: HttpWire
) -> None:
    async def work() -> str:
        async with connected(api, MODERN, wire.url) as client:
            await client.list_tools()
            wire.lose("reply", "mcp_meta_register_instance")
            with pytest.raises(MCPError) as lost:
                await register(client, "odin")
            return str(lost.value)

    assert "may have been carried out" in asyncio.run(work())
    assert len(ok(api.get("/api/instances"))["instances"]) == 1


def test_a_service_that_was_killed_and_started_again_is_found_again(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path, mode: str
) -> None:
    async def work(api: Api, first: Server, wire: HttpWire, url: str) -> None:
        async with connected(api, mode, wire.url) as client:
            await register(client, "odin")
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            with pytest.raises(MCPError):
                await register(client, "odin")
            with Server(url, tmp_path, API_KEYS=f"{api.namespace}:{api.key}") as second:
                wire.target = second.url
                await register(client, "odin")

    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path) as first,
        first.world() as api,
        http_wire(first.url) as wire,
    ):
        asyncio.run(work(api, first, wire, url))


# By hand: what a client of any make may send


class Pipes:
    """``holdfast mcp`` at the ends of two pipes."""

    def __init__(self, api: Api, url: str | None = None, key: str | None = None) -> None:
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOLDFAST_URL": url or str(api.base_url).rstrip("/"),
            "HOLDFAST_API_KEY": key or api.key or "",
        }
        self.process = subprocess.Popen(
            [HOLDFAST, "mcp"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, message: object) -> None:
        """One line."""
        assert self.process.stdin is not None
        line = message if isinstance(message, str) else json.dumps(message)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Json:
        """The next line."""
        assert self.process.stdout is not None
        answer: Json = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> str:
        """Close stdin; all that was still printed, once it has ended well."""
        out, err = self.process.communicate(timeout=60)
        assert (self.process.returncode, err) == (0, "")
        return out


Piped = Callable[..., Pipes]


@pytest.fixture
def piped(api: Api) -> Iterator[Piped]:
    made: list[Pipes] = []

    def begin(url: str | None = None, key: str | None = None) -> Pipes:
        made.append(Pipes(api, url, key))
        return made[-1]

    yield begin
    for pipes in made:
        pipes.process.kill()
        pipes.process.communicate()


def asked(number: int, method: str, **params: object) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def initialize(number: int, version: str) -> Json:
    client = {"name": "t", "version": "1"}
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
    return asked(number, "initialize", **params)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_every_older_version_is_spoken(piped: Piped, version: str) -> None:
    pipes = piped()
    pipes.send(initialize(1, version))
    assert pipes.answer()["result"]["protocolVersion"] == version
    pipes.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    pipes.send(asked(2, "tools/list"))
    assert len(pipes.answer()["result"]["tools"]) > 8

    assert pipes.end() == ""


def test_nothing_but_answers_is_printed_and_rubbish_gets_one_too(piped: Piped) -> None:
    pipes = piped()
    pipes.send("this is no JSON")
    assert pipes.answer()["error"]["code"] == -32700
    pipes.send("[1, 2]")
    assert pipes.answer()["error"]["code"] == -32600
    pipes.send("")
    pipes.send({"jsonrpc": "2.0", "method": "notifications/whatever"})
    pipes.send(initialize(1, "2025-06-18"))
    assert pipes.answer()["id"] == 1
    pipes.send(asked(2, "no/such/method"))
    refused = pipes.answer()
    assert (refused["id"], refused["error"]["code"]) == (2, -32601)

    assert pipes.end() == ""


def test_what_was_asked_before_stdin_ended_is_still_answered(piped: Piped) -> None:
    pipes = piped()
    pipes.send(initialize(1, "2025-06-18"))

    assert json.loads(pipes.end())["id"] == 1


@pytest.mark.parametrize(("key", "what"), [("nobody-s", "Invalid"), ("clé", "Malformed")])
def test_an_invalid_key_is_told_with_what_to_do(piped: Piped, key: str, what: str) -> None:
    pipes = piped(key=key)
    pipes.send(initialize(1, "2025-06-18"))
    error = pipes.answer()["error"]

    assert f"{what} API key" in error["message"]
    assert "HOLDFAST_API_KEY" in error["message"]


def test_an_agent_that_starts_before_the_service_is_there_is_answered_when_it_is(
    piped: Piped, wire: HttpWire
) -> None:
    """Whoever gets an error to its first words does without the tools for good."""
    wire.down()
    pipes = piped(wire.url)
    pipes.send(asked(0, "tools/list"))
    assert "cannot be reached" in pipes.answer()["error"]["message"]
    pipes.send(initialize(1, "2025-06-18"))
    wire.up()

    assert pipes.answer()["result"]["protocolVersion"] == "2025-06-18"


def test_what_was_cancelled_is_not_answered(piped: Piped, wire: HttpWire) -> None:
    wire.down()
    pipes = piped(wire.url)
    pipes.send(initialize(1, "2025-06-18"))
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    pipes.send(cancelled)
    pipes.send(asked(2, "tools/list"))
    assert pipes.answer()["id"] == 2
    wire.up()
    pipes.send(initialize(3, "2025-06-18"))
    assert pipes.answer()["id"] == 3

    assert pipes.end() == ""


def test_an_agent_that_was_killed_leaves_no_bridge_behind(piped: Piped) -> None:
    pipes = piped()
    pipes.send(initialize(1, "2025-06-18"))
    pipes.answer()
    assert pipes.process.stdin is not None
    pipes.process.stdin.close()

    assert eventually(lambda: pipes.process.poll() is not None, "its end")
    pipes.process.stdin = None
