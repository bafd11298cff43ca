"""Field cases A: connections that are opened to take the service down, and what is logged of it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.raw import Raw
from tests.acceptance.serving import PLAIN_KEY, Server, eventually, ok, refused
from tests.acceptance.test_field_a_requests import HEALTH, is_refusal, post

SHORT = {
    "HEADER_TIMEOUT_SECONDS": "0.4",
    "BODY_TIMEOUT_SECONDS": "0.4",
    "IDLE_TIMEOUT_SECONDS": "0.4",
}
# Long enough that nothing of this ends while a test runs.
LONG = dict.fromkeys(SHORT, "600")


def keyed(path: str = "/api/sessions") -> bytes:
    """A request with a key."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {PLAIN_KEY}\r\n\r\n".encode()


# Time


def test_a_connection_without_a_request_is_closed(database: str, start: Start) -> None:
    """Given sockets that never say anything, or nothing more, then they are closed, soundlessly."""
    with start(database, **SHORT) as server, Raw(server.url) as mute, Raw(server.url) as idle:
        idle.send(HEALTH)
        assert idle.reply() is not None
        assert mute.has_ended()
        assert idle.has_ended()


@pytest.mark.parametrize(
    "begin",
    [b"G", b"\r\n", b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nA: b\r\n", HEALTH[:-1]],
)
def test_a_header_that_does_not_come_to_its_end_in_time_is_refused(
    database: str, start: Start, begin: bytes
) -> None:
    """Given a header that stops, or that comes byte by byte, then 408, and the end."""
    with start(database, **SHORT) as server:
        with Raw(server.url) as raw:
            raw.send(begin)
            is_refusal(raw.reply(), 408, "request_timeout")
            assert raw.has_ended()
        with Raw(server.url) as raw:
            raw.send(HEALTH)
            assert raw.reply() is not None
            raw.send(begin)
            is_refusal(raw.reply(), 408, "request_timeout")


def test_a_header_in_drops_is_refused(database: str, start: Start) -> None:
    """Given a header of which a byte comes now and then, then its time is up all the same."""
    with start(database, **SHORT) as server, Raw(server.url) as raw:
        raw.send(b"GET /health HTTP/1.1\r\nA: ")
        eventually("its end", lambda: not raw.send(b"a"))


def test_a_body_that_does_not_come_in_time_is_refused(database: str, start: Start) -> None:
    """Given a body that stops or comes in drops, then 408, and nothing was done."""
    with start(database, **SHORT) as server:
        for kind, begin in (
            ("Content-Length: 100", b""),
            ("Content-Length: 100", b'{"project_id"'),
            ("Transfer-Encoding: chunked", b"5\r\n{"),
        ):
            with Raw(server.url) as raw:
                raw.send(post("/api/sessions", kind) + begin)
                is_refusal(raw.reply(), 408, "request_timeout")
                assert raw.has_ended()
        with Raw(server.url) as raw:
            raw.send(post("/api/sessions", "Content-Length: 100000"))
            eventually("its end", lambda: not raw.send(b" "))
        with server.default() as client:
            assert ok(client.get("/api/sessions"))["total_count"] == 0


def test_a_refused_body_does_not_keep_the_connection(database: str, start: Start) -> None:
    """Given a request without a key whose body stays away, then it is closed after its 401."""
    with start(database, **SHORT) as server, Raw(server.url) as raw:
        raw.send(post("/api/sessions", "Content-Length: 100", key=None))
        reply = raw.reply()
        assert reply is not None
        assert reply.status == 401
        assert raw.has_ended()


def test_a_slow_answer_is_not_a_slow_request(database: str, start: Start) -> None:
    """Given a request that is answered late, then no time runs out meanwhile."""
    with start(database, **SHORT) as server, Raw(server.url) as raw:
        raw.send(keyed("/api/events?after=1000000&wait=2") + HEALTH)
        first, second = raw.reply(), raw.reply()
        assert first is not None
        assert (first.status, first.body["events"]) == (200, [])
        assert second is not None
        assert second.status == 200


# Number


def test_strangers_make_room_for_each_other(database: str, start: Start) -> None:
    """Given more silent connections than there may be, then the oldest goes for each new one.

    Whoever has shown a key stays, and whoever comes with one gets in.
    """
    with start(database, MAX_CONNECTIONS="20", **LONG) as server, ExitStack() as stack:
        friends = [stack.enter_context(Raw(server.url)) for _ in range(5)]
        for friend in friends:
            friend.send(keyed())
            assert friend.reply() is not None
        strangers = [stack.enter_context(Raw(server.url)) for _ in range(100)]
        for stranger in strangers[:5]:
            assert stranger.has_ended()
        with server.default() as client:
            client.session()
        # One that sends what needs no key is a stranger still.
        for stranger in strangers[-3:]:
            stranger.send(HEALTH)
            assert stranger.reply() is not None
        more = [stack.enter_context(Raw(server.url)) for _ in range(100)]
        assert strangers[-1].has_ended()
        for friend in friends:
            friend.send(keyed())
            reply = friend.reply()
            assert reply is not None
            assert reply.status == 200
        more[-1].send(keyed())
        reply = more[-1].reply()
        assert reply is not None
        assert reply.status == 200


def test_an_idle_connection_makes_room_and_a_busy_one_does_not(database: str, start: Start) -> None:
    """Given nothing but clients with keys, then an idle one goes; with none idle, 503."""
    begun = post("/api/sessions", "Content-Length: 10")
    with start(database, MAX_CONNECTIONS="10", **LONG) as server, ExitStack() as stack:
        busy = [stack.enter_context(Raw(server.url)) for _ in range(9)]
        for client in busy:
            # The key of a body's sender is known before the body is there.
            client.send(begun)
        idle = stack.enter_context(Raw(server.url))
        idle.send(keyed())
        assert idle.reply() is not None
        last = stack.enter_context(Raw(server.url))
        assert idle.has_ended()
        last.send(begun.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        reply = last.reply()
        assert reply is not None
        assert reply.status == 100
        with Raw(server.url) as refused_one:
            is_refusal(refused_one.reply(), 503, "too_many_connections")
            assert refused_one.has_ended()
        assert server.lines("request_refused")


# Logs


def test_failed_authentications_are_summed_up(database: str, start: Start) -> None:
    """Given thousands of requests without a valid key, then some lines, and a count of the rest."""
    number = 3_000
    with start(database) as server:
        with server.nobody() as client:
            for n in range(number):
                refused(
                    client.get("/api/sessions", headers={"X-API-Key": f"{n:04}" + "x" * 12}),
                    401,
                    "unauthorized",
                )
        lines = server.lines("authentication_failed")
        told = sum(line["context"]["attempts_since_last_line"] for line in lines)
        assert 5 <= len(lines) < 400
        assert len(lines) + told <= number
        assert len(server.log()) < 200_000
        for message in ("request_refused", "request_failed"):
            assert not server.lines(message)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /nothing HTTP/1.1\r\n\r\n",
        b"PUT /health HTTP/1.1\r\n\r\n",
        post("/api/sessions", "Content-Length: 2") + b"{]",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"GET /health HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_no_refusal_fills_the_log(database: str, start: Start, request_: bytes) -> None:
    """Given a thousand requests that are refused, whatever for, then a bounded log."""
    with start(database) as server:
        for _ in range(1_000):
            with Raw(server.url) as raw:
                raw.send(request_)
                assert raw.reply() is not None
        assert len(server.log()) < 100_000


def test_whom_a_proxy_speaks_for_is_believed_of_a_trusted_one_only(
    database: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given X-Forwarded-For, then the log has the peer's address unless TRUSTED_PROXIES has it."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    claimed = {"X-Forwarded-For": "203.0.113.9"}
    for proxies, expected in (
        ("", "127.0.0.1"),
        ("10.0.0.7", "127.0.0.1"),
        ("10.0.0.7,127.0.0.0/8", "203.0.113.9"),
    ):
        with start(database, TRUSTED_PROXIES=proxies) as server, server.nobody() as client:
            client.get("/api/sessions", headers=claimed)
            line = eventually("its line", lambda: next(iter(failures(server)), None))
            assert line["context"]["ip"] == expected


def failures(server: Server) -> list[dict[str, dict[str, object]]]:
    """The lines about failed authentications."""
    return server.lines("authentication_failed")


def test_workers_have_the_same_door(database: str, start: Start) -> None:
    """Given several worker processes, then each keeps the limits."""
    with start(database, WORKERS="2", **SHORT) as server:
        for _ in range(6):
            with Raw(server.url) as raw:
                raw.send(b"GET /" + b"a" * 40_000)
                is_refusal(raw.reply(), 414, "url_too_long")
        with Raw(server.url) as mute:
            assert mute.has_ended()
