"""What someone does to a service for a few seconds, to bring it down or to have it for himself.

An attack runs in a process of its own, as often as it can until its time is up. It does not care
for replies; whether it was felt, the well-behaved client says.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import orjson

KIB = 1024
MIB = 1024 * KIB


class Target(NamedTuple):
    """A service, a key to it that is not the well-behaved client's, and for how long."""

    url: str
    key: str
    seconds: float

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def head(self, line: str, *headers: str, key: str | None = None) -> bytes:
        """A request's header."""
        lines = [f"{line} HTTP/1.1", "Host: x", *headers]
        if key is not None:
            lines.append(f"X-API-Key: {key}")
        return "\r\n".join([*lines, "", ""]).encode()

    def client(self) -> httpx.AsyncClient:
        """A client with the key."""
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"X-API-Key": self.key},
            timeout=30,
            trust_env=False,
            verify=False,
            limits=limits,
        )


# Sends until its time is up; returns how often it did what it does.
Attack = Callable[[Target], Awaitable[int]]


async def _until(target: Target, once: Callable[[], Awaitable[object]], at_once: int) -> int:
    """Do it again and again, so many at once; being refused or cut off is no reason to stop."""
    end = time.monotonic() + target.seconds
    count = 0

    async def again() -> None:
        nonlocal count
        while time.monotonic() < end:
            with suppress(OSError, EOFError, httpx.HTTPError, asyncio.TimeoutError):
                await asyncio.wait_for(once(), max(end - time.monotonic(), 0.01))
            count += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(again() for _ in range(at_once)))
    return count


def _endless(begin: bytes, piece: bytes, most: int = 64 * MIB, at_once: int = 4) -> Attack:
    """Send a beginning, and then a piece for ever, without reading a word."""

    async def attack(target: Target) -> int:
        loop = asyncio.get_running_loop()
        start = begin.replace(b"KEY", target.key.encode())

        async def once() -> None:
            with socket.socket() as raw:
                raw.setblocking(False)
                await loop.sock_connect(raw, target.place)
                await loop.sock_sendall(raw, start)
                for _ in range(most // len(piece)):
                    await loop.sock_sendall(raw, piece)

        return await _until(target, once, at_once)

    return attack


def _requests(request: bytes, at_once: int = 16) -> Attack:
    """Send a request and wait for an answer, again and again on one connection, then on another."""

    async def attack(target: Target) -> int:
        count = 0

        async def once() -> None:
            nonlocal count
            reader, writer = await asyncio.open_connection(*target.place)
            try:
                for _ in range(50):
                    writer.write(request)
                    if not await reader.read(65_536):
                        return
                    count += 1
            finally:
                writer.transport.abort()

        return await _until(target, once, at_once) + count

    return attack


def _crowd(number: int, say: bytes, *, stay: bool) -> Attack:
    """Open so many connections, say something on each, and keep them or open them again."""

    async def attack(target: Target) -> int:
        loop = asyncio.get_running_loop()
        said = say.replace(b"KEY", target.key.encode())
        end = time.monotonic() + target.seconds
        count = 0
        while time.monotonic() < end:
            raws: list[socket.socket] = []
            try:
                for _ in range(number):
                    raw = socket.socket()
                    raw.setblocking(False)
                    raws.append(raw)
                    with suppress(OSError, asyncio.TimeoutError):
                        await asyncio.wait_for(loop.sock_connect(raw, target.place), 2)
                        await asyncio.wait_for(loop.sock_sendall(raw, said), 2)
                    count += 1
                    if time.monotonic() > end:
                        break
                if stay:
                    await asyncio.sleep(max(end - time.monotonic(), 0))
            finally:
                for raw in raws:
                    raw.close()
        return count

    return attack


async def nothing(target: Target) -> int:
    """No attack: what the machine makes of the well-behaved client alone."""
    await asyncio.sleep(target.seconds)
    return 1


async def crumbs(target: Target) -> int:
    """Hundreds of headers that come byte by byte, so that none is ever silent."""
    end = time.monotonic() + target.seconds
    raws = []
    for _ in range(300):
        reader, writer = await asyncio.open_connection(*target.place)
        writer.write(b"GET /health HTTP/1.1\r\nA: ")
        raws.append((reader, writer))
    count = 0
    while time.monotonic() < end:
        for _, writer in raws:
            if not writer.transport.is_closing():
                writer.write(b"a")
                count += 1
        await asyncio.sleep(0.01)
    for _, writer in raws:
        writer.transport.abort()
    return count


# With a key


async def _instance(client: httpx.AsyncClient) -> str:
    reply = await client.post("/api/instances", json={"project": "abuse", "instance_type": "PS"})
    reply.raise_for_status()
    return str(reply.json()["instance_id"])


async def _session(client: httpx.AsyncClient) -> str:
    reply = await client.post(
        "/api/sessions", json={"project_id": "abuse", "machine_id": f"m-{uuid4().hex}"}
    )
    reply.raise_for_status()
    return str(reply.json()["session_id"])


async def _with_events(client: httpx.AsyncClient, number: int, size: int) -> str:
    """An instance with so many events of so many bytes."""
    instance = await _instance(client)
    data = {"epic_id": "epic-1", "text": "lorem ipsum " * (size // 12)}
    body = {"event_type": "epic_started", "event_data": data}
    turns = asyncio.Semaphore(8)

    async def add() -> None:
        async with turns:
            await client.post(f"/api/instances/{instance}/events", json=body)

    await asyncio.gather(*(add() for _ in range(number)))
    return instance


def _posting(path: str, content: bytes, at_once: int = 4) -> Attack:
    """Post a body to a session's path, again and again."""

    async def attack(target: Target) -> int:
        async with target.client() as client:
            session = await _session(client)
            return await _until(
                target, lambda: client.post(path.format(session), content=content), at_once
            )

    return attack


async def searches(target: Target) -> int:
    """Eight at once look for a word that is nowhere, in a long history."""
    async with target.client() as client:
        instance = await _with_events(client, 300, 20 * KIB)
        path = f"/api/instances/{instance}/events"
        return await _until(target, lambda: client.get(path, params={"keyword": "nowhere"}), 8)


async def searches_that_nobody_awaits(target: Target) -> int:
    """The same, each given up after a moment."""
    async with target.client() as client:
        instance = await _with_events(client, 300, 20 * KIB)
        path = f"/api/instances/{instance}/events"

        async def once() -> None:
            await client.get(path, params={"keyword": "nowhere"}, timeout=0.02)

        return await _until(target, once, 8)


async def metadata(target: Target) -> int:
    """Heartbeats and changes that add to a session's metadata, 250 KB at a time."""
    async with target.client() as client:
        session = await _session(client)
        number = 0

        async def once() -> None:
            nonlocal number
            number += 1
            body = {"metadata": {f"key-{number}": "x" * 250_000}}
            await client.post(f"/api/sessions/{session}/heartbeat", json=body)
            await client.patch(f"/api/sessions/{session}", json=body)
            await client.get("/api/sessions")

        return await _until(target, once, 4)


async def long_polls(target: Target) -> int:
    """Long polls, for what there is and for what there is not, opened and dropped at once."""
    async with target.client() as client:
        await _with_events(client, 200, 1 * KIB)
    asked = [
        target.head(f"GET /api/events?{query}", key=target.key)
        for query in (
            "after=1000000000&wait=30",
            "after=0&wait=30&event_type=test_failed",
            "after=0&wait=30&event_type=epic_completed&limit=1",
        )
    ]
    turn = 0

    async def once() -> None:
        nonlocal turn
        turn += 1
        _, writer = await asyncio.open_connection(*target.place)
        writer.write(asked[turn % len(asked)])
        await asyncio.sleep(0.005)
        writer.transport.abort()

    return await _until(target, once, 32)


async def big_pages(target: Target) -> int:
    """Pages of the largest events, again and again."""
    async with target.client() as client:
        instance = await _with_events(client, 200, 200 * KIB)
        paths = [f"/api/instances/{instance}/events?limit=1000", "/api/events?after=0&limit=1000"]
        turn = 0

        async def once() -> None:
            nonlocal turn
            turn += 1
            await client.get(paths[turn % 2])

        return await _until(target, once, 4)


async def pages_read_slowly(target: Target) -> int:
    """Sixty at once ask for a page of the largest events, and read it in drops."""
    async with target.client() as client:
        instance = await _with_events(client, 40, 200 * KIB)
    asked = target.head(f"GET /api/instances/{instance}/events?limit=1000", key=target.key)
    end = time.monotonic() + target.seconds
    raws: list[socket.socket] = []
    for _ in range(60):
        raw = socket.create_connection(target.place)
        raw.sendall(asked)
        raw.setblocking(False)
        raws.append(raw)
    count = 0
    while time.monotonic() < end:
        for raw in raws:
            with suppress(OSError):
                count += len(raw.recv(100))
        await asyncio.sleep(0.05)
    for raw in raws:
        raw.close()
    return max(count, len(raws))


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
DOCS = b"GET /api/docs HTTP/1.1\r\nHost: x\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
KEYED = b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n"
CHUNKED = KEYED + b"Transfer-Encoding: chunked\r\n\r\n"
UNFINISHED = b"Content-Length: 262000\r\n\r\n" + b'{"project_id": "' + b"p" * 255_000
MANY_FIELDS = orjson.dumps({f"field-{n}": n for n in range(14_000)})
# 1e308 is 309 digits where it is stored.
EXPONENTS = b'{"metadata": {"n": [' + b",".join([b"1e308"] * 30_000) + b"]}}"
DIGITS = b'{"metadata": {"n": [' + b",".join([b"1e99"] * 30_000) + b"]}}"

# Letter A of what was found in the field: without a key, but for its unfinished bodies.
WITHOUT_A_KEY: Mapping[str, Attack] = {
    "(no attack)": nothing,
    "pipelined requests, no reply read": _endless(b"", HEALTH * 500),
    "the same on 200 connections": _endless(b"", HEALTH * 500, at_once=200),
    "pipelined documents, no reply read": _endless(b"", DOCS * 500),
    "endless URL": _endless(b"GET /", b"a" * 60_000),
    "endless header value": _endless(GET + b"A: ", b"a" * 60_000),
    "endless header name": _endless(GET, b"a" * 60_000),
    "endless header value in small pieces": _endless(GET + b"A: ", b"a" * 100, 1 * MIB),
    "endless header lines": _endless(GET, b"A: b\r\n" * 5_000),
    "endless trailer": _endless(CHUNKED + b"0\r\n", b"A: b\r\n" * 5_000),
    "endless chunk extension": _endless(CHUNKED + b"1;a=", b"a" * 60_000),
    "endless body": _endless(
        b"POST /api/sessions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"a" * 60_000
    ),
    "endless blank lines": _endless(b"", b"\r\n" * 30_000, at_once=50),
    "a body in chunks of one byte": _endless(
        KEYED.replace(b"X-API-Key: KEY\r\n", b"") + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n" * 10_000,
        at_once=50,
    ),
    "the same with a key": _endless(CHUNKED, b"1\r\na\r\n" * 10_000, at_once=16),
    "headers that come byte by byte": crumbs,
    "unfinished bodies": _crowd(
        300, KEYED.replace(b"X-API-Key: KEY\r\n", b"") + UNFINISHED, stay=True
    ),
    "unfinished bodies with a key": _crowd(300, KEYED + UNFINISHED, stay=True),
    "silent connections": _crowd(5_000, b"", stay=True),
    "connections opened and dropped": _crowd(200, b"", stay=False),
    "connections that asked once": _crowd(5_000, HEALTH, stay=True),
    "requests without a key": _requests(b"GET /api/sessions HTTP/1.1\r\nHost: x\r\n\r\n"),
    "wrong keys": _requests(b"GET /api/sessions HTTP/1.1\r\nX-API-Key: wrong\r\n\r\n"),
    "unknown paths": _requests(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"),
    "malformed requests": _requests(b"nonsense\r\n\r\n"),
}

# Letter B: with a key, against whoever has another.
WITH_A_KEY: Mapping[str, Attack] = {
    "pipelined requests with a key": _endless(
        b"GET /api/sessions?limit=1 HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n", HEALTH * 500
    ),
    "numbers with large exponents": _posting("/api/sessions/{}/heartbeat", EXPONENTS),
    "numbers that grow when stored": _posting("/api/sessions/{}/heartbeat", DIGITS),
    "thousands of unknown fields": _posting("/api/sessions/{}/heartbeat", MANY_FIELDS),
    "keyword searches": searches,
    "keyword searches that nobody awaits": searches_that_nobody_awaits,
    "metadata that grows": metadata,
    "long polls opened and dropped": long_polls,
    "pages of large events": big_pages,
    "pages that are read slowly": pages_read_slowly,
}

ATTACKS: Mapping[str, Attack] = {**WITHOUT_A_KEY, **WITH_A_KEY}


def carry_out(name: str, target: Target, done: Callable[[int], None]) -> None:
    """Carry out an attack, in the process that calls, and tell how often it was done."""
    done(asyncio.run(_carry_out(ATTACKS[name], target)))


async def _carry_out(attack: Attack, target: Target) -> int:
    return await attack(target)
