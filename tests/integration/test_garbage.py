"""A request leaves nothing to the collector: what is in circles stays until the process is idle."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.acceptance.raw import Raw
from tests.support.in_process import service_within

KEY = "a-key-of-this-test"
REQUESTS = 30
MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def url(database: str) -> Iterator[str]:
    """The address of a service in this very process, whose garbage is then its own."""
    with service_within(database, KEY) as address:
        yield address


def request(line: str, body: str = "", key: str = KEY) -> bytes:
    """A request with a key."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nX-API-Key: {key}\r\n{length}\r\n{body}".encode()


CASES = {
    "answered": (200, request("GET /api/sessions")),
    "without a key": (401, request("GET /api/sessions", key="wrong")),
    "an unknown path": (404, request("GET /nothing")),
    "a wrong method": (405, request("PUT /api/sessions")),
    "no JSON": (400, request("POST /api/sessions", "{]")),
    "missing fields": (400, request("POST /api/sessions", "{}")),
    "refused by the writer": (404, request(f"POST /api/sessions/{MISSING}/heartbeat")),
    "refused by a reader": (404, request(f"GET /api/sessions/{MISSING}")),
    "malformed": (400, b"nonsense\r\n\r\n"),
    "too many headers": (431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n"),
    "an upgrade": (
        200,
        b"GET /health HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
}


def test_a_request_leaves_nothing_to_the_collector(url: str) -> None:
    """Given requests of many kinds, each on a connection of its own, then no circle is left."""
    for what, (status, sent) in CASES.items():
        _ask(url, status, sent)  # what is built once may take a circle or two
        gc.collect()
        gc.disable()
        try:
            for _ in range(REQUESTS):
                _ask(url, status, sent)
            # The writer keeps its last command, a closed connection goes with the next turn.
            _ask(url, 200, request("GET /health"))
            left = gc.collect()
        finally:
            gc.enable()
        assert left < REQUESTS, f"{what}: {left} objects after {REQUESTS} requests"


def _ask(url: str, status: int, sent: bytes) -> None:
    with Raw(url) as raw:
        raw.send(sent)
        reply = raw.reply()
        assert reply is not None
        assert reply.status == status
