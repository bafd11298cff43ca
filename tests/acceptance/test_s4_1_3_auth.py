"""S4 1.3: API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.serving import (
    PLAIN_KEY,
    Api,
    Json,
    Server,
    attempt,
    eventually,
    name,
    ok,
    refused,
)


def post_session(client: httpx.Client, **headers: bytes | str) -> httpx.Response:
    """The reply to a good request with these headers."""
    body = {"project_id": name("project"), "machine_id": name("machine")}
    encoded = {
        key.replace("_", "-").encode(): value.encode() if isinstance(value, str) else value
        for key, value in headers.items()
    }
    return client.post("/api/sessions", json=body, headers=encoded)


def test_a_valid_key_is_let_in(server: Server) -> None:
    """AC-1.3.a With a valid X-API-Key a POST is 201 and a GET 200."""
    with server.nobody() as client:
        session_id = ok(post_session(client, X_API_Key=PLAIN_KEY), 201)["session_id"]
        read = client.get(f"/api/sessions/{session_id}", headers={"X-API-Key": PLAIN_KEY})
        assert ok(read)["session_id"] == session_id


def test_a_bearer_token_is_a_key_too(server: Server) -> None:
    """AC-1.3.a Authorization: Bearer is the same (spec 13); the scheme's case does not matter."""
    with server.nobody() as client:
        for scheme in ("Bearer", "bearer"):
            ok(post_session(client, Authorization=f"{scheme} {PLAIN_KEY}"), 201)
        body = refused(post_session(client, Authorization="Basic eDp5"), 401, "unauthorized")
        assert body["message"] == "API key required"


def test_a_request_without_a_key_is_refused(server: Server) -> None:
    """AC-1.3.b No key: 401, "API key required"."""
    with server.nobody() as client:
        response = post_session(client)
    assert refused(response, 401, "unauthorized")["message"] == "API key required"
    assert "www-authenticate" in response.headers


def test_an_invalid_key_is_refused(server: Server) -> None:
    """AC-1.3.c An unknown key: 401, "Invalid API key"."""
    with server.nobody() as client:
        for key in ("invalid-key-123", str(uuid4()), PLAIN_KEY.upper(), PLAIN_KEY[:-1]):
            body = refused(post_session(client, X_API_Key=key), 401, "unauthorized")
            assert body["message"] == "Invalid API key"


@pytest.mark.parametrize("key", [b"", "schlüssel".encode(), b"x" * 129, b"a\tb"])
def test_a_malformed_key_is_refused(server: Server, key: bytes) -> None:
    """AC-1.3.c Blank, non-ASCII, control characters or over 128 long: 401, "Malformed API key"."""
    with server.nobody() as client:
        body = refused(post_session(client, X_API_Key=key), 401, "unauthorized")
        assert body["message"] == "Malformed API key"


def test_a_refused_request_does_nothing(server: Server, api: Api) -> None:
    """AC-1.3.c Authentication comes before everything else: before the path, before the body."""
    session = api.session()
    with server.nobody() as client:
        for path in (f"/api/sessions/{session['session_id']}", "/api/sessions/nonsense"):
            refused(client.delete(path), 401, "unauthorized")
        refused(client.post("/api/sessions", content=b"{"), 401, "unauthorized")
    assert api.get_session(session["session_id"]) == session


def test_health_needs_no_key(server: Server) -> None:
    """AC-1.3.d GET /health is open, whatever key is sent along."""
    with server.nobody() as client:
        for headers in ({}, {"X-API-Key": "wrong"}):
            assert ok(client.get("/health", headers=headers))["status"] == "ok"


def test_a_failed_attempt_is_logged_masked(server: Server) -> None:
    """AC-1.3.e A failure leaves a line with time, IP address and the masked key."""
    key = f"secret-{uuid4()}"
    with server.nobody() as client:
        request_id = post_session(client, X_API_Key=key).headers["x-request-id"]
    line = logged(server, "authentication_failed", request_id)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])).days) == 0
    assert line["level"] == "WARNING"
    assert line["context"]["ip"] == "127.0.0.1"
    assert line["context"]["api_key"] == "secr****"
    assert line["context"]["reason"] == "Invalid API key"
    assert key not in server.log()


def test_a_missing_or_malformed_key_is_logged_too(server: Server) -> None:
    """AC-1.3.e So does a request with no key, or with one that cannot be one."""
    with server.nobody() as client:
        none = post_session(client).headers["x-request-id"]
        short = post_session(client, X_API_Key="hunter2").headers["x-request-id"]
        bad = post_session(client, X_API_Key=b"\xff" * 20).headers["x-request-id"]
    assert logged(server, "authentication_failed", none)["context"]["api_key"] == "none"
    assert logged(server, "authentication_failed", short)["context"]["api_key"] == "****"
    assert logged(server, "authentication_failed", bad)["context"]["api_key"] == "????****"
    assert "hunter2" not in server.log()


def test_a_successful_attempt_is_logged_masked(server: Server, api: Api) -> None:
    """AC-1.3.e A key's first success from an address is logged at once, with its masked key."""
    request_id = api.get("/api/sessions").headers["x-request-id"]
    line = logged(server, "authentication_succeeded", request_id)
    assert api.key is not None
    assert line["context"]["ip"] == "127.0.0.1"
    assert line["context"]["api_key"] == f"{api.key[:4]}****"
    assert line["context"]["namespace"] == api.namespace
    assert api.key not in server.log()


def logged(server: Server, message: str, request_id: str) -> Json:
    """The log line of one request, awaited."""

    def find() -> Json | None:
        lines = server.lines(message)
        return next((x for x in lines if x["context"].get("request_id") == request_id), None)

    return eventually(f"a line {message}", find)


@pytest.mark.parametrize("keys", ["", "  ", ",", " , "])
def test_a_start_with_empty_keys_fails(keys: str) -> None:
    """AC-1.3.f API_KEYS set but empty: the start fails and names it."""
    failed = attempt(API_KEYS=keys)
    assert failed.returncode == 2
    assert "API_KEYS" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_start_with_a_malformed_key_fails_without_telling_it() -> None:
    """AC-1.3.f A key of API_KEYS that cannot be one is refused by its number, never shown."""
    failed = attempt(API_KEYS="good-key-1,schlüssel-17")
    assert failed.returncode == 2
    assert "API_KEYS: entry 2" in failed.stderr
    assert "schl" not in failed.stderr
