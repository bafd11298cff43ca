"""A load at a constant rate, whatever the server does: requests fall due at fixed times.

    python -m bench.open_loop < plan.json

A latency counts from the time at which its request fell due, not from the time at which it could
be sent, so a server that stands still is not asked less for it (no coordinated omission). The
timer of the event loop has steps of a millisecond; what it is late by counts too.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import deque
from typing import NamedTuple, cast

import orjson
import uvloop

LEAD_SECONDS = 0.2
PATIENCE_SECONDS = 30.0


class Plan(NamedTuple):
    """What to send, to whom, how often."""

    host: str
    port: int
    key: str
    # Path and body of each POST, sent in turn.
    requests: list[tuple[str, str]]
    rate: int
    seconds: int
    connections: int


class Outcome(NamedTuple):
    """What came of a plan. Times are of the monotonic clock, which all processes share."""

    latencies_ms: list[float]
    # When each success was heard of, and the position that it told.
    acknowledged: list[tuple[float, int]]
    refused: int
    unanswered: int


class Load:
    """The requests that are due, and the connections to send them on."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = [_request(plan, path, body) for path, body in plan.requests]
        self._due: deque[tuple[float, bytes]] = deque()
        self.free: deque[Connection] = deque()
        self.outcome = Outcome([], [], 0, 0)
        self._refused = 0

    async def run(self) -> Outcome:
        """Send everything at its time; returns when all is answered."""
        plan = self._plan
        loop = asyncio.get_running_loop()
        for _ in range(plan.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self), plan.host, plan.port
            )
            self.free.append(connection)
        total = plan.rate * plan.seconds
        start = time.monotonic() + LEAD_SECONDS
        for number in range(total):
            due = start + number / plan.rate
            while (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._due.append((due, self._requests[number % len(self._requests)]))
            self.send()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._answered < total and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.outcome._replace(
            refused=self._refused, unanswered=max(0, total - self._answered)
        )

    def send(self) -> None:
        """Send what is due, as far as there are connections for it."""
        while self._due and self.free:
            due, request = self._due.popleft()
            self.free.popleft().ask(due, request)

    def answered(self, connection: Connection, due: float, status: bytes, head: bytes) -> None:
        """Note an answer; its connection is free again."""
        now = time.monotonic()
        self.outcome.latencies_ms.append((now - due) * 1000)
        if status in (b"200", b"201"):
            position = head.partition(b"x-event-position: ")[2].partition(b"\r\n")[0]
            self.outcome.acknowledged.append((now, int(position)))
        else:
            self._refused += 1
        self.free.append(connection)
        self.send()

    @property
    def _answered(self) -> int:
        return len(self.outcome.latencies_ms)


class Connection(asyncio.Protocol):
    """One request at a time. Knows as much HTTP as the service's replies need."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of the standard library's classes.
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, due: float, request: bytes) -> None:
        """Send a request that fell due at this time."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) >= int(length):
            self._received = b""
            self._load.answered(self, self._due, head[9:12], head)


def _request(plan: Plan, path: str, body: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\n"
        f"host: {plan.host}:{plan.port}\r\n"
        f"x-api-key: {plan.key}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


def main() -> None:
    """Carry out the plan on standard input."""
    plan = Plan(*orjson.loads(sys.stdin.buffer.read()))
    # Pauses of this program would be blamed on the server.
    gc.disable()
    sys.stdout.buffer.write(orjson.dumps(list(uvloop.run(Load(plan).run()))))


if __name__ == "__main__":
    main()
