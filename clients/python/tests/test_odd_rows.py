"""Rows of the spool that nobody can have meant, clocks that went back, proxies that are none."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.test_elsewhere import machine, machines
from clients.python.tests.test_key_stays import kept

from holdfast import Client
from holdfast.earlier import Earlier
from holdfast.request import Request, new_key
from holdfast.spool import Spool
from tests.acceptance.serving import Api, ok
from tests.support.proxy import HttpWire

FAR = 1e300


@pytest.mark.parametrize(
    "columns",
    [
        *({"kept_at": odd} for odd in ("yesterday", b"x", FAR, -FAR, float("inf"), 1e12)),
        *({"tried_at": odd} for odd in ("yesterday", b"x", FAR, -FAR, float("inf"))),
        *({"faults": odd} for odd in ("x", b"x", FAR, -5)),
        *({"placeholder": odd} for odd in ("x", "unsent-", 5, b"x")),
        {"replaces": 5, "owner": "x"},
        {"owner": b"x"},
        {"key_id": b"x"},
        {"body": '{"project_id": "p", "project_id": 5}'},
        {"body": '{"a": 1e999}'},
        {"body": '{"project_id": "\\ud800"}'},
        {"body": '{"project_id": "unsent-session-' + "0" * 32 + '"}'},
    ],
)
def test_a_column_may_hold_anything_and_the_rest_is_sent(
    connect: Connect, wire: HttpWire, api: Api, columns: dict[str, object]
) -> None:
    client = connect(wire.url, retries=0)
    kept(client.spool, **{"path": "/api/sessions", **columns})  # type: ignore[arg-type]
    client.spool.keep(machine("late"))

    assert client.flush()
    assert machines(api) == {"late"}
    other = connect("http://holdfast.invalid:1", retries=0)
    for spool in (client.spool, other.spool):
        spool.stats(), spool.other_keys(), spool.other_addresses(), spool.refused()


def test_a_write_with_a_time_that_is_none_is_sent_all_the_same(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    client = connect(wire.url, retries=0)
    for number, odd in enumerate(("x", FAR, -1.0)):
        body = f'{{"project_id": "odin-{number}", "machine_id": "laptop"}}'
        kept(client.spool, "/api/sessions", body=body, kept_at=odd)

    assert client.flush()
    assert client.spool.refused() == []
    assert len(ok(api.get("/api/sessions"))["sessions"]) == 3


def test_a_heartbeat_of_a_clock_that_went_back_is_not_sent_for_the_dead(client: Client) -> None:
    path = "/api/instances/odin-PS-0/heartbeat"
    later = time.time() + 3600
    kept(client.spool, path, owner="1-dead", replaces="odin-PS-0", kept_at=later)

    assert client.spool.first() is None
    assert client.spool.stats().kept == 0


def test_what_was_tried_by_a_clock_that_went_back_is_looked_for_in_the_record(
    client: Client,
) -> None:
    """Its idempotency key may be forgotten: whether it was carried out, only the record knows."""
    body = {"project_id": "odin", "machine_id": "laptop"}
    request = Request("POST", "/api/sessions", body, idempotency_key=new_key())
    reply = client.transport.send(request).body
    later = time.time() + 48 * 3600.0
    key = request.idempotency_key
    kept(client.spool, "/api/sessions", tried_at=later, idempotency_key=key)
    entry = client.spool.first()
    assert entry is not None
    found = Earlier(client.transport).outcome(entry, request)

    assert found is not None
    assert found["session_id"] == reply["session_id"]


PROXIES = [
    "foo:bar:baz",
    "http://h:bad",
    "http://h:99999",
    "http://h:-1",
    "://",
    "http://[::1",
    "ftp://h:1",
    "socks5://h:1",
    "http:h",
    "http://user:hunter2\r\nX: y@127.0.0.1:9",
    "http://" + "x" * 300 + ":1",
    " ",
]


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_none_is_said_and_stops_nothing(
    proxy: str, scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", proxy)
    monkeypatch.setattr("holdfast.exchange._TOLD", set())
    with (
        caplog.at_level(logging.WARNING),
        Client(f"{scheme}://holdfast.invalid:1", None, lenient=True, retries=0) as client,
    ):
        reply = client.sessions.create("odin", "laptop")

    assert reply["unsent"]  # type: ignore[typeddict-item]
    assert caplog.text.count("cannot be used: the service is asked without one") == bool(
        proxy.strip()
    )
    assert "hunter2" not in caplog.text


def test_two_that_send_one_spool_at_once_send_each_once(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    clients = [connect(wire.url, retries=0) for _ in range(2)]
    spool = Spool(clients[0].settings.spool_dir, wire.url, api.key)
    for number in range(20):
        spool.keep(machine(f"m{number}"))
    threads = [threading.Thread(target=client.flush, args=(60.0,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(machines(api)) == 20
    assert spool.stats() == (0, 0, 0)
    registered = ok(api.get("/api/events", params={"limit": 1000}))["events"]
    assert len([one for one in registered if one["event_type"] == "machine_registered"]) == 20
