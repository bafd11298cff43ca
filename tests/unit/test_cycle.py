"""How replies go out: whole ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from interfaces.http import doorkeeper
from interfaces.http.doorkeeper import TURNS, Doorkeeper, Limits
from interfaces.http.protocol import Connection

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = (b"content-length", b"4")


class Wire(asyncio.Transport):
    """Remembers each write, which with a socket is a system call."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Remember it."""
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """All was sent."""
        return 0

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Remember that, too."""
        self.is_closed = True

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


def connected(app: ASGIApp, wire: Wire) -> Connection:
    """A connection over this wire."""
    config = uvicorn.Config(app, http=Connection, ws="none", log_config=None)
    config.load()
    connection = Connection(config, ServerState(), {"doorkeeper": Doorkeeper(Limits())})
    connection.connection_made(wire)
    return connection


def exchange(*said: Message, request: bytes = GET) -> Wire:
    """What is written for an application that says this, one message after the other."""
    wire = Wire()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in said:
            await send(message)

    async def talk() -> None:
        connection = connected(app, wire)
        connection.data_received(request)
        await asyncio.gather(*connection.tasks, return_exceptions=True)

    asyncio.run(talk())
    return wire


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    """The head of a reply."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> Message:
    """The body of a reply, or a piece of it."""
    return {"type": "http.response.body", "body": content, "more_body": more}


def test_a_whole_reply_is_one_write() -> None:
    """Given a reply of known length, then head and body go out together."""
    [sent] = exchange(start(LENGTH, (b"x-own", b"1")), body(b"four")).writes
    assert sent == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-own: 1\r\n\r\nfour"


def test_the_head_of_a_stream_does_not_wait() -> None:
    """Given a reply of unknown length, then its head goes out before there is a body."""
    assert len(exchange(start()).writes) == 1
    sent = exchange(start(), body(b"a", more=True), body(b"b", more=True), body(b"")).writes
    assert sent[0].endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert sent[1:] == [b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"]


def test_pieces_go_out_as_they_come() -> None:
    """Given a reply of known length in pieces, then none waits for the next."""
    sent = exchange(start(LENGTH), body(b"fo", more=True), body(b"ur")).writes
    assert [sent[0][:15], *sent[1:]] == [b"HTTP/1.1 200 OK", b"fo", b"ur"]


@pytest.mark.parametrize("status", [200, 404])
def test_a_reply_to_head_has_no_body(status: int) -> None:
    """Given HEAD, then the length is told and no body is sent."""
    request = GET.replace(b"GET", b"HEAD")
    [sent] = exchange(start(LENGTH, status=status), body(b"four"), request=request).writes
    assert sent.endswith(b"content-length: 4\r\n\r\n")


@pytest.mark.parametrize(
    "request_", [GET.replace(b"1.1", b"1.0"), GET.replace(b"Host: x", b"Connection: close")]
)
def test_the_last_reply_says_so_and_closes(request_: bytes) -> None:
    """Given a client that wants no more, then the reply says so, and the connection ends."""
    wire = exchange(start(LENGTH), body(b"four"), request=request_)
    assert wire.writes[0].endswith(b"connection: close\r\n\r\nfour")
    assert wire.is_closed


def test_a_connection_header_of_the_application_counts() -> None:
    """Given an application that ends the connection, then it ends, and it is said once."""
    wire = exchange(start(LENGTH, (b"connection", b"close")), body(b"four"))
    assert b"".join(wire.writes).count(b"connection: close") == 1
    assert wire.is_closed


@pytest.mark.parametrize(
    "said",
    [
        [start(LENGTH, (b"x-own", b"a\r\nset-cookie: b")), body(b"four")],
        [start(LENGTH, (b"x-own\n", b"a")), body(b"four")],
        [start(LENGTH), body(b"five!")],
        [start(LENGTH), body(b"")],
        [start(LENGTH)],
    ],
    ids=["a header in a value", "a line break in a name", "too long", "too short", "no body"],
)
def test_a_reply_that_is_none_is_an_error(said: Sequence[Message]) -> None:
    """Given an application with a defect, then nothing of its reply goes out as if it were good."""
    sent = b"".join(exchange(*said).writes)
    assert sent.startswith(b"HTTP/1.1 500") or not sent
    assert b"set-cookie" not in sent


def test_whoever_pipelines_takes_turns_with_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given many requests at once on one connection, then a few are begun before a pause."""
    monkeypatch.setattr(doorkeeper, "PAUSE_SECONDS", 3_600)
    begun = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        scope["state"]["principal"] = "somebody"
        await send(start(LENGTH))
        await send(body(b"four"))

    async def talk() -> None:
        connection = connected(app, Wire())
        connection.data_received(GET)
        await asyncio.gather(*connection.tasks)
        assert connection.has_key
        connection.data_received(GET * 5 * TURNS)
        for _ in range(20 * TURNS):
            # One round of the event loop, in which a request could be answered.
            await asyncio.sleep(0)

    asyncio.run(talk())
    # The first two need no turn: nothing says yet that this one does not wait for its replies. The
    # very first was a stranger's.
    assert begun == 1 + 1 + TURNS - 1
