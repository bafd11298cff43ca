"""Field cases A: requests that someone without a key sends to take the service down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.raw import Raw, RawReply
from tests.acceptance.serving import (
    PLAIN_KEY,
    Api,
    Server,
    eventually,
    is_uuid4,
    name,
    ok,
    refused,
)

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
KIB = 1024
MIB = 1024 * KIB


def resident(server: Server) -> int:
    """The memory that the server's process has, in bytes."""
    size: int = psutil.Process(server.process.pid).memory_info().rss
    return size


def is_refusal(reply: RawReply | None, status: int, code: str) -> None:
    """The one error reply, and word that the connection ends with it."""
    assert reply is not None
    assert (reply.status, reply.body["statusCode"], reply.body["code"]) == (status, status, code)
    assert {"error", "message", "timestamp", "path", "request_id"} < set(reply.body)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert is_uuid4(reply.headers["x-request-id"])
    assert reply.headers["x-request-id"] == reply.body["request_id"]


def post(path: str, *headers: str, key: str | None = PLAIN_KEY) -> bytes:
    """A POST's header."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    if key is not None:
        lines.append(f"X-API-Key: {key}")
    return "\r\n".join([*lines, "", ""]).encode()


# Pipelining


def test_pipelined_requests_are_all_answered_in_order(server: Server) -> None:
    """Given hundreds of requests in one go, then each is answered, in order."""
    paths = [f"/nothing/{number}" for number in range(500)]
    with Raw(server.url) as raw:
        raw.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        replies = [raw.reply() for _ in paths]
    assert [reply and reply.body["path"] for reply in replies] == paths


def test_pipelined_commands_with_bodies_are_carried_out_in_order(api: Api, server: Server) -> None:
    """Given many commands in one go, in pieces of any length, then all happen, in order."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}/heartbeat"
    requests = b""
    for number in range(60):
        body = f'{{"metadata": {{"n": {number}, "text": "\\r\\n\\r\\n"}}}}'.encode()
        requests += post(path, f"Content-Length: {len(body)}", key=api.key) + body
    for size in (len(requests), 1_000, 97):
        with Raw(server.url) as raw:
            for at in range(0, len(requests), size):
                raw.send(requests[at : at + size])
            seen = [raw.reply() for _ in range(60)]
        assert [reply and reply.body["metadata"]["n"] for reply in seen] == list(range(60))


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/docs", "/api/sessions"])
def test_whoever_does_not_read_costs_little_and_is_let_go(
    database: str, start: Start, path: str
) -> None:
    """Given endless requests and nobody who reads the replies, then the memory stays, and it ends.

    Once the buffers between the two are full nothing more is taken, and then it is closed.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 1_000
    with start(database, WRITE_TIMEOUT_SECONDS="1") as server:
        before = resident(server)
        with Raw(server.url) as raw:
            assert not all(raw.send(block) for block in repeat(request, 5_000)), "it took all"
        assert resident(server) - before < 50 * MIB
        with server.default() as client:
            client.session()


# What is too long


def pieces(piece: bytes) -> Iterator[bytes]:
    """A piece, again and again: 64 MiB of it."""
    return repeat(piece, 64 * MIB // len(piece))


CHUNKED = post("/api/sessions", "Transfer-Encoding: chunked")
ENDLESS = {
    "url": (b"GET /", b"a" * 60_000, 414),
    "query": (b"GET /health?", b"a=b&" * 15_000, 414),
    "header name": (b"GET /health HTTP/1.1\r\n", b"a" * 60_000, 431),
    "header value": (b"GET /health HTTP/1.1\r\nA: ", b"a" * 60_000, 431),
    "header value in crumbs": (b"GET /health HTTP/1.1\r\nA: ", b"a" * 99, 431),
    "blanks before a value": (b"GET /health HTTP/1.1\r\nA:", b" " * 60_000, 431),
    "blanks before the url": (b"GET ", b" " * 60_000, 431),
    "header lines": (b"GET /health HTTP/1.1\r\n", b"A: b\r\n" * 10_000, 431),
    "empty lines": (b"", b"\r\n" * 10_000, 431),
    "trailer": (CHUNKED + b"0\r\nA: ", b"a" * 60_000, 431),
    "trailer name": (CHUNKED + b"0\r\n", b"a" * 60_000, 431),
    "trailer lines": (CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000, 431),
    "chunk extension": (CHUNKED + b"1;a=", b"a" * 60_000, 431),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_refused_on_the_way(server: Server, what: str) -> None:
    """Given a part of a request that goes on for ever, then it is refused long before 64 MiB."""
    begin, piece, status = ENDLESS[what]
    before = resident(server)
    with Raw(server.url) as raw:
        raw.send(begin)
        assert not all(raw.send(more) for more in pieces(piece)), "it was never refused"
        codes = {414: "url_too_long", 431: "headers_too_large"}
        is_refusal(raw.reply(), status, codes[status])
        assert raw.has_ended()
    assert resident(server) - before < 50 * MIB


def test_the_limits_of_a_header(server: Server) -> None:
    """Given headers and URLs just within the limits and just beyond, then 200, 431 and 414."""

    def status(head: str) -> int | None:
        with Raw(server.url) as raw:
            raw.send(f"{head}\r\n\r\n".encode())
            reply = raw.reply()
            return reply and reply.status

    line = "GET /health HTTP/1.1"
    assert status(f"{line}\r\nA: {'a' * 30_000}") == 200
    assert status(f"{line}\r\nA: {'a' * 33_000}") == 431
    assert status("\r\n".join([line, *(f"A: {n}" for n in range(100))])) == 200
    assert status("\r\n".join([line, *(f"A: {n}" for n in range(101))])) == 431
    assert status("\r\n".join([line, *(f"A{n}: {'a' * 1000}" for n in range(40))])) == 431
    assert status(f"GET /health?{'a' * 30_000} HTTP/1.1") == 200
    assert status(f"GET /health?{'a' * 33_000} HTTP/1.1") == 414
    assert status(f"GET /{'a' * 33_000} HTTP/1.1") == 414
    # As clients send them.
    with server.nobody() as client:
        refused(client.get("/health", headers={"X": "a" * 200_000}), 431, "headers_too_large")
        refused(client.get("/health", params={"x": "a" * 60_000}), 414, "url_too_long")


def test_a_trailer_says_nothing(api: Api, server: Server) -> None:
    """Given headers in a trailer, then they are read past: no key comes in that way."""
    body = b"2\r\n{}\r\n0\r\nX-API-Key: %b\r\nIdempotency-Key: k\r\n\r\n" % str(api.key).encode()
    path = f"/api/sessions/{api.session()['session_id']}/heartbeat"
    for key, status in ((None, 401), (api.key, 200)):
        with Raw(server.url) as raw:
            raw.send(post(path, "Transfer-Encoding: chunked", key=key) + body + HEALTH)
            reply, after = raw.reply(), raw.reply()
        assert reply is not None
        assert reply.status == status
        assert "idempotency-replayed" not in reply.headers
        assert after is not None
        assert after.status == 200


# What is not HTTP, or more than one reading of it


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "another version": b"GET /health HTTP/7.1\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nHost: x\n\n",
    "no colon": b"GET /health HTTP/1.1\r\nHost\r\n\r\n",
    "a blank before the colon": b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
    "a continued line": b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "a control character": b"GET /health HTTP/1.1\r\nA: b\x00\r\n\r\n",
    "bytes in the URL": b"GET /\xff HTTP/1.1\r\n\r\n",
    "connect": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "length and chunks": post("/api/sessions", "Content-Length: 2", "Transfer-Encoding: chunked"),
    "chunks and length": post("/api/sessions", "Transfer-Encoding: chunked", "Content-Length: 2"),
    "two lengths": post("/api/sessions", "Content-Length: 2", "Content-Length: 3"),
    "two equal lengths": post("/api/sessions", "Content-Length: 2", "Content-Length: 2"),
    "a list of lengths": post("/api/sessions", "Content-Length: 2, 2"),
    "a negative length": post("/api/sessions", "Content-Length: -1"),
    "a signed length": post("/api/sessions", "Content-Length: +1"),
    "a length that is none": post("/api/sessions", "Content-Length: 0x10"),
    "an endless length": post("/api/sessions", f"Content-Length: {'9' * 40}"),
    "another encoding": post("/api/sessions", "Transfer-Encoding: gzip"),
    "identity": post("/api/sessions", "Transfer-Encoding: identity"),
    "encoded twice": post("/api/sessions", "Transfer-Encoding: gzip, chunked"),
    "encoded twice in two lines": post(
        "/api/sessions", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"
    ),
    "chunked twice": post(
        "/api/sessions", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"
    ),
    "nearly chunked": post("/api/sessions", "Transfer-Encoding: xchunked"),
    "chunks in 1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"x\r\n",
    "a chunk of a negative size": CHUNKED + b"-1\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_http_is_refused(server: Server, what: str) -> None:
    """Given what is malformed or could be read in two ways, then 400, and nothing after it."""
    with Raw(server.url) as raw:
        raw.send(MALFORMED[what] + HEALTH)
        is_refusal(raw.reply(), 400, "malformed_request")
        assert raw.has_ended()


def test_a_malformed_request_is_refused_in_its_turn(server: Server) -> None:
    """Given good requests before a malformed one, then they are answered first."""
    with Raw(server.url) as raw:
        raw.send(HEALTH * 3 + MALFORMED["two lengths"] + HEALTH)
        replies = [raw.reply() for _ in range(3)]
        assert [reply and reply.status for reply in replies] == [200, 200, 200]
        is_refusal(raw.reply(), 400, "malformed_request")
        assert raw.has_ended()


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_an_upgrade_is_not_granted(server: Server, upgrade: str) -> None:
    """Given a wish for another protocol, then an answer in this one, and the end."""
    wish = f"Host: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n".encode()
    with Raw(server.url) as raw:
        raw.send(b"GET /health HTTP/1.1\r\n" + wish + HEALTH)
        reply = raw.reply()
        assert reply is not None
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert raw.has_ended()


# Bodies


def test_a_body_is_asked_for_only_once_there_is_a_key(server: Server) -> None:
    """Given a body still to come, then without a key 401 at once, with one the body is awaited."""
    for key in (None, "wrong"):
        for more in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
            with Raw(server.url) as raw:
                raw.send(post("/api/sessions", more, key=key))
                reply = raw.reply()
                assert reply is not None
                assert reply.status == 401
    with Raw(server.url) as raw:
        raw.send(post("/api/sessions", "Content-Length: 99999999999"))
        reply = raw.reply()
        assert reply is not None
        assert (reply.status, reply.body["code"]) == (413, "payload_too_large")
    with Raw(server.url) as raw:
        raw.send(post("/api/sessions", "Content-Length: 2", "Expect: 100-continue"))
        reply = raw.reply()
        assert reply is not None
        assert reply.status == 100
    with Raw(server.url) as raw:
        raw.send(post("/api/sessions", "Content-Length: 2", "Expect: 100-continue", key=None))
        reply = raw.reply()
        assert reply is not None
        assert reply.status == 401
        assert raw.has_ended()


def test_half_a_body_is_none(api: Api, server: Server, stored: Callable[[], int]) -> None:
    """Given a client that goes before its body is there, then nothing happens."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}/heartbeat"
    before = stored()
    for begin in (b"", b"{}"):
        with Raw(server.url) as raw:
            raw.send(post(path, "Content-Length: 50", key=api.key) + begin)
    with Raw(server.url) as raw:
        raw.send(post(path, "Transfer-Encoding: chunked", key=api.key) + b"2\r\n{}\r\n")
    ok(api.get("/api/sessions"))
    # Whatever they did they did before this.
    api.post("/api/machines", json={"hostname": name("h"), "docker_slots": []})
    assert stored() == before + 1


def test_a_refused_body_is_read_past(server: Server) -> None:
    """Given a body of some MiB that is refused, then its sender learns that, and goes on."""
    with Raw(server.url) as raw:
        raw.send(post("/api/sessions", f"Content-Length: {2 * MIB}"))
        raw.send(b" " * (2 * MIB))
        raw.send(HEALTH)
        replies = [raw.reply(), raw.reply()]
    assert [reply and reply.status for reply in replies] == [413, 200]


def test_a_refused_body_without_end_ends_the_connection(server: Server) -> None:
    """Given one that goes on and on, then it is cut off."""
    with Raw(server.url) as raw:
        raw.send(CHUNKED.replace(PLAIN_KEY.encode(), b"wrong"))
        chunk = b"fff0\r\n" + b" " * 0xFFF0 + b"\r\n"
        assert not all(raw.send(more) for more in pieces(chunk)), "it took all"


def test_unfinished_bodies_are_bounded_and_given_back(database: str, start: Start) -> None:
    """Given hundreds of bodies that lack their last byte, then 503 from some number on.

    And the memory comes back; a body that comes as a whole is taken all the while.
    """
    body = b'{"project_id": "' + b"p" * (250 * KIB)
    with start(database) as server:
        before = resident(server)
        raws = [Raw(server.url) for _ in range(300)]
        for raw in raws:
            raw.send(post("/api/sessions", f"Content-Length: {len(body) + 3}") + body)

        refusal = raws[-1].reply()
        assert refusal is not None
        assert (refusal.status, refusal.body["code"]) == (503, "too_many_bodies")
        with server.team() as other:
            other.session()
        assert resident(server) - before < 100 * MIB
        for raw in raws:
            raw.socket.close()
        eventually("the memory back", lambda: resident(server) - before < 50 * MIB)
