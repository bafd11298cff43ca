"""Something else answers at the service's address: it is an outage, and never fails the work."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.supervised import HOLDFAST

from holdfast import Client, HeartbeatManager, Unavailable, exchange, replies
from holdfast.exchange import MAX_REPLY_BYTES
from tests.acceptance.serving import Api
from tests.support.commands import Cli
from tests.support.waiting import eventually

Say = Callable[[socket.socket], None]


def reply(
    status: int, body: bytes = b"", *headers: str, length: int | None = None, kind: str = "json"
) -> Say:
    """A reply as it stands on the wire; ``length`` is what it says of its body."""
    told = len(body) if length is None else length
    head = [f"HTTP/1.1 {status} -", f"Content-Type: application/{kind}", f"Content-Length: {told}"]
    whole = "\r\n".join([*head, "Connection: close", *headers, "", ""]).encode() + body
    return lambda client: client.sendall(whole)


def shaped(value: object, *headers: str, status: int = 200) -> Say:
    """A reply with a JSON body."""
    return reply(status, json.dumps(value).encode(), *headers)


def trickle(client: socket.socket) -> None:
    """A reply that never ends, a byte at a time: no pause is long enough to be a time-out."""
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        client.sendall(b" ")
        time.sleep(0.05)


def slow_head(client: socket.socket) -> None:
    """Header after header."""
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X: y\r\n")
        time.sleep(0.05)


def bomb(client: socket.socket) -> None:
    """A little that unpacks to very much."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    client.sendall(head + PACKED)


def endless(client: socket.socket) -> None:
    """More and more."""
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


PACKED = gzip.compress(b"[" + b" " * (64 << 20))
SOME_ID = "3f2a8c1e-8f4a-4b1c-9d2e-0123456789ab"
POSITION = "X-Event-Position: 7"
KINDS: dict[str, Say] = {
    "an empty object": shaped({}),
    "an empty object and a position": shaped({}, POSITION, "X-Request-Id: 1", status=201),
    "no body": reply(204, b"", POSITION),
    "null": reply(200, b"null", POSITION),
    "a list": shaped([], POSITION),
    "a text": shaped("ok", POSITION),
    "wrong types": shaped({"session_id": 5, "instance_id": [], "status": {}}, POSITION),
    "an id alone": shaped({"session_id": SOME_ID, "instance_id": "odin-PS-0"}, POSITION),
    "a wrong header": shaped({"session_id": SOME_ID}, "X-Event-Position: abc"),
    "a header beyond all bounds": shaped({}, f"X-Event-Position: {'9' * 5000}"),
    "deep JSON": reply(200, b"[" * 100_000 + b"]" * 100_000, POSITION),
    "deep JSON that can be read": reply(200, b'{"a":' * 900 + b"1" + b"}" * 900, POSITION),
    "a long number": reply(200, b'{"a": ' + b"9" * 100_000 + b"}", POSITION),
    "no number": reply(200, b'{"a": NaN}', POSITION),
    "half a body": reply(200, b'{"session_id": "', POSITION, length=1000),
    "not UTF-8": reply(200, b'{"a": "\xff\xfe"}', POSITION),
    "a captive portal": reply(200, b"<html>Please log in", kind="html"),
    "a redirect": reply(302, b"", "Location: http://127.0.0.1:9/"),
    "a redirect with a body": reply(307, b"{}", "Location: http://127.0.0.1:9/"),
    "another's refusal": shaped({"code": "bad", "message": "no"}, status=400),
    "another's absence": shaped({"code": "absent", "message": "no", "x": 1}, status=404),
    "another's conflict": shaped({"code": 409, "message": ["no"]}, status=409),
    "a strange refusal": shaped(
        {"code": "x", "message": "y", "request_id": "z", "statusCode": 400}, status=409
    ),
    "a strange Retry-After": reply(429, b"", "Retry-After: nan"),
    "an endless Retry-After": reply(503, b"", "Retry-After: inf"),
    "a gateway for little": reply(413, b"<html>Too large", kind="html"),
    "a teapot": reply(418, b"short and stout"),
    "an unknown encoding": reply(200, b"{}", "Content-Encoding: br", POSITION),
    "a bad encoding": reply(200, b"{}", "Content-Encoding: gzip", POSITION),
    "a large body that is announced": reply(200, b"{", length=1 << 40),
    "no HTTP": lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "nothing": lambda client: None,
    "a header without end": lambda client: client.sendall(b"HTTP/1.1 200 " + b"x" * 200_000),
    "a gzip bomb": bomb,
    "an endless body": endless,
}
# Where a process has to be started for each.
SOME = (
    "an empty object and a position",
    "wrong types",
    "deep JSON",
    "a captive portal",
    "another's refusal",
    "a gateway for little",
    "a gzip bomb",
)
SLOW: dict[str, Say] = {"a trickle": trickle, "a slow head": slow_head}


@contextmanager
def answering(say: Say) -> Iterator[str]:
    """Something that says the same to whoever asks, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=speak, args=(client,), daemon=True).start()

    def speak(client: socket.socket) -> None:
        with client, suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += client.recv(65_536)
            say(client)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture(params=KINDS)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of something else."""
    with answering(KINDS[request.param]) as url:
        yield url


@pytest.fixture(params=SOME)
def one_elsewhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of something else, of which there are fewer."""
    with answering(KINDS[request.param]) as url:
        yield url


def test_a_lenient_client_goes_on_whatever_answers(elsewhere: str) -> None:
    with Client(elsewhere, "key", lenient=True, retries=0) as client:
        with client.session("odin", "laptop") as session, session.task("write the parser"):
            session.say(metadata={"step": 1})
        with client.instance("odin") as agent:
            agent.emit("epic_started", epic_id="e")
            agent.checkpoint("l", {"a": 1})
        kept = client.spool.stats()

    assert (kept.kept >= 9, kept.refused) == (True, 0)


def test_a_strict_client_says_that_it_is_not_the_service(elsewhere: str) -> None:
    with Client(elsewhere, "key", retries=0) as client:
        for ask in (
            client.health,
            client.sessions.list,
            client.history.after,
            lambda: client.instances.get("odin-PS-000000"),
            lambda: client.claims.take("item", session_id=SOME_ID),
            lambda: client.sessions.beat(SOME_ID),
            lambda: client.sessions.delete(SOME_ID),
            lambda: client.beat_all([{"session_id": SOME_ID}]),
        ):
            with pytest.raises(Unavailable):
                ask()


def test_what_is_kept_is_not_delivered_to_it(elsewhere: str, api: Api) -> None:
    """Neither taken for sent nor for refused."""
    with Client(elsewhere, api.key, lenient=True, retries=0) as client:
        agent = client.instances.register("odin")["instance_id"]
        client.instances.emit(agent, "epic_started", {"epic_id": "e"})
        client.instances.close(agent)
        client.sessions.delete(SOME_ID)

        assert not client.flush(0.3)
        assert client.spool.stats()[::2] == (4, 0)


def test_a_command_is_run_whatever_answers(one_elsewhere: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [HOLDFAST, "run", "--project", "p", "--", "touch", str(tmp_path / "ran")],
        env={"HOLDFAST_URL": one_elsewhere, "HOLDFAST_API_KEY": "k", "PATH": "/usr/bin:/bin",
             "HOLDFAST_SPOOL_DIR": str(tmp_path / "spool"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip

    assert (done.returncode, (tmp_path / "ran").exists()) == (0, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", SLOW)
def test_whoever_never_finishes_a_reply_is_given_up(kind: str) -> None:
    with answering(SLOW[kind]) as url, Client(url, "key", retries=0, timeout=0.5) as client:
        with pytest.raises(Unavailable):
            client.health()
        with pytest.raises(Unavailable):
            client.sessions.create("odin", "laptop")


def test_what_a_reply_unpacks_to_is_bounded_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    def unpacked(response: httpx.Response) -> Iterator[bytes]:
        nonlocal largest
        for piece in before(response):
            largest = max(largest, len(piece))
            yield piece

    before = exchange._unpacked
    monkeypatch.setattr(exchange, "_unpacked", unpacked)
    with (
        answering(bomb) as url,
        Client(url, "key", retries=0) as client,
        pytest.raises(Unavailable, match="16 MiB"),
    ):
        client.health()

    assert 0 < largest < 1 << 20
    assert MAX_REPLY_BYTES == 16 << 20


@pytest.mark.parametrize("command", [["status"], ["next"], ["events", "odin"], ["topology"],
                                     ["claim", "x", "--session", SOME_ID]])  # fmt: skip
def test_the_command_line_says_so(one_elsewhere: str, command: list[str]) -> None:
    ended = Cli(one_elsewhere, "key")(*command)

    assert ended.code == 6
    assert one_elsewhere in ended.err


def test_a_reply_that_was_compressed_is_read(api: Api) -> None:
    """As some gateways do it."""
    health = {"status": "ok", "timestamp": "2026-01-01T00:00:00Z"}
    packed = reply(200, gzip.compress(json.dumps(health).encode()), "Content-Encoding: gzip")
    with answering(packed) as url, Client(url, "key", retries=0) as client:
        assert client.health() == health


def test_heartbeats_go_on_until_the_service_is_back(connect: Connect, api: Api) -> None:
    session = api.session()["session_id"]
    gone = {"code": "session_not_found", "message": "There is no such session."}
    with answering(shaped(gone, status=404)) as url:
        client = connect(url, lenient=True, retries=0)
        with HeartbeatManager(client, interval=0.05) as manager:
            manager.start(session)
            eventually(lambda: manager.stats().failures > 3)
            assert manager.is_active(session)


def test_the_bridge_answers_its_agent_whatever_answers(one_elsewhere: str) -> None:
    ask = {"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}
    with subprocess.Popen(
        [HOLDFAST, "mcp"],
        env={"HOLDFAST_URL": one_elsewhere, "HOLDFAST_API_KEY": "k", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as bridge:
        out, _ = bridge.communicate(json.dumps(ask).encode() + b"\n", timeout=60)
    answer = json.loads(out)

    assert answer["id"] == 7
    assert isinstance(answer["error"]["message"], str)


def test_every_reply_that_is_defined_is_of_an_operation() -> None:
    """A path that is misspelt would never be checked."""
    from interfaces.operations import OPERATIONS

    known = {
        "/".join("{}" if part.startswith("{") else part for part in operation.path.split("/"))
        for operation in OPERATIONS
    }
    paths = {path for _, path in replies.REPLIES}
    assert paths - {"/health", "/api/docs"} <= known
