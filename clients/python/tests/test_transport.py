"""Requests are repeated while that can help, and carried out once (spec 11)."""

from __future__ import annotations

import json

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, Conflict, RateLimited, ServiceFault, Unavailable, Unreachable
from tests.acceptance.serving import Api, Json, ok
from tests.support.proxy import HttpWire, Loss


def gateway(status: int, *headers: str, body: bytes = b"busy") -> bytes:
    """What a proxy before the service answers by itself."""
    head = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def created(api: Api) -> list[Json]:
    """The sessions of the test's namespace."""
    sessions: list[Json] = ok(api.get("/api/sessions"))["sessions"]
    return sessions


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_gateway_is_asked_again(
    connect: Connect, wire: HttpWire, api: Api, status: int
) -> None:
    wire.answer(gateway(status), gateway(status))

    session = connect(wire.url).sessions.create("odin", "laptop")

    assert [one["session_id"] for one in created(api)] == [session["session_id"]]


def test_a_reply_that_cannot_be_read_is_asked_for_again(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    wire.answer(gateway(502, "Content-Encoding: gzip", body=b"not compressed"))

    session = connect(wire.url).sessions.create("odin", "laptop")

    assert [one["session_id"] for one in created(api)] == [session["session_id"]]


@pytest.mark.parametrize("loss", ["request", "reply"])
def test_a_write_whose_connection_breaks_is_carried_out_once(
    connect: Connect, wire: HttpWire, api: Api, loss: Loss
) -> None:
    wire.lose(loss, "odin")

    session = connect(wire.url).sessions.create("odin", "laptop")

    assert wire.broken.is_set()
    assert [one["session_id"] for one in created(api)] == [session["session_id"]]


def test_who_is_told_to_wait_for_longer_than_they_have_patience_gives_up(
    connect: Connect, wire: HttpWire
) -> None:
    wire.answer(gateway(429, "Retry-After: 3600"))

    with pytest.raises(RateLimited) as refused:
        connect(wire.url).sessions.list()

    assert refused.value.retry_after == 3600


def test_what_cannot_help_is_not_repeated(connect: Connect, wire: HttpWire, api: Api) -> None:
    client = connect(wire.url)
    client.sessions.create("odin", "laptop")
    conflict, fault = (
        {"code": code, "message": "no", "request_id": "1"}
        for code in ("conflict", "internal_error")
    )
    wire.answer(
        gateway(409, body=json.dumps(conflict).encode()),
        gateway(500, body=json.dumps(fault).encode()),
    )

    with pytest.raises(Conflict):
        client.sessions.create("odin", "desktop")
    with pytest.raises(ServiceFault):
        client.sessions.create("odin", "desktop")

    assert len(created(api)) == 1


def test_it_gives_up_after_as_many_retries_as_it_is_told(connect: Connect, wire: HttpWire) -> None:
    wire.answer(gateway(503), gateway(503), gateway(503))
    with pytest.raises(Unavailable) as refused:
        connect(wire.url, retries=1).sessions.list()

    assert refused.value.status == 503
    assert connect(wire.url, retries=1).sessions.list()["sessions"] == []


def test_an_address_of_something_else_is_said_to_be_one(connect: Connect, wire: HttpWire) -> None:
    """It is no answer of the service's: neither "not found" nor "done"."""
    client = connect(wire.url, retries=0)

    for status in (200, 302, 401, 404, 500):
        wire.answer(gateway(status, body=b"<html>"))
        with pytest.raises(Unavailable, match="is it a holdfast service") as refused:
            client.sessions.list()
        assert wire.url in str(refused.value)


def test_a_client_that_was_closed_says_so(client: Client) -> None:
    client.close()

    with pytest.raises(Unreachable, match="closed"):
        client.health()
