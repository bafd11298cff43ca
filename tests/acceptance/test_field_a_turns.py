"""Field case 2: what is costly to read is read in turns, and nobody is forgotten over it."""

from __future__ import annotations

import orjson
import pytest

from tests.acceptance.raw import Raw
from tests.acceptance.serving import PLAIN_KEY, Json, Server, name

HEALTH = b"GET /health HTTP/1.1\r\n\r\n"


def session(text: str) -> Json:
    return {"project_id": name("project"), "machine_id": name("machine"), "metadata": {"a": text}}


@pytest.mark.parametrize("framing", ["chunks of one byte", "a length", "a length with zeros"])
def test_a_body_in_many_pieces_is_taken_whole(server: Server, framing: str) -> None:
    """Given a body of 20 KB, blank lines in it, and requests behind it, then each is answered."""
    body = orjson.dumps(session("x" * 20_000)) + b"\r\n\r\n" * 500
    head = f"POST /api/sessions HTTP/1.1\r\nX-API-Key: {PLAIN_KEY}\r\n".encode()
    if framing == "chunks of one byte":
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        sent = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    else:
        zeros = "0" * 30 if framing.endswith("zeros") else ""
        head += f"Content-Length: {zeros}{len(body)}\r\n\r\n".encode()
        sent = body
    with Raw(server.url) as raw:
        assert raw.send(b"\r\n" * 50 + head + sent + b"\r\n" + HEALTH * 20)
        replies = [raw.reply() for _ in range(21)]
    assert [reply and reply.status for reply in replies] == [201] + [200] * 20
    first = replies[0]
    assert first is not None
    assert first.body["metadata"] == {"a": "x" * 20_000}
