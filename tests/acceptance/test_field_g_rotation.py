"""Field cases 31: a repeated request is the same request, whatever key of its sender it carries."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

import httpx
import orjson
import psycopg
import pytest

from tests.acceptance.serving import Api, Server, gone, name, ok, refused

OLD, NEW, OTHER = (str(uuid4()) for _ in range(3))


def keyed(key: str) -> dict[str, str]:
    """The header."""
    return {"Idempotency-Key": key}


def place() -> dict[str, object]:
    """The body of a session in a place of its own."""
    return {"project_id": name("project"), "machine_id": name("machine")}


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Both are one reply, told twice."""
    assert again.status_code == first.status_code
    assert again.content == first.content
    assert again.headers["x-event-position"] == first.headers["x-event-position"]


@pytest.mark.parametrize("prefix", ["", "team:", "ci@team:", "ci@default:"])
def test_a_repeat_after_a_rotation_is_still_a_repeat(
    database: str, tmp_path: Path, prefix: str
) -> None:
    """Given a request, a rotation over two starts, and the request again, then one effect."""
    body = place()
    with (
        Server(database, tmp_path, API_KEYS=f"{prefix}{OLD}") as before,
        Api(before.url, OLD, "") as api,
    ):
        first = api.post("/api/sessions", json=body, headers=keyed("k"))
        session_id = ok(first, 201)["session_id"]
        path = f"/api/sessions/{session_id}"
        beat = api.post(f"{path}/heartbeat", json={"metadata": {"n": 1}}, headers=keyed("k"))
        swept = api.post("/api/sessions/detect-failures", headers=keyed("k"))
    with (
        Server(database, tmp_path, API_KEYS=f"{prefix}{OLD},{prefix}{NEW}") as both,
        Api(both.url, NEW, "") as api,
    ):
        same(first, api.post("/api/sessions", json=body, headers=keyed("k")))
        refused(
            api.post("/api/sessions", json=place(), headers=keyed("k")), 422, "idempotency_mismatch"
        )
    with (
        Server(database, tmp_path, API_KEYS=f"{prefix}{NEW}") as after,
        Api(after.url, NEW, "") as api,
        Api(after.url, OLD, "") as gone_key,
    ):
        refused(gone_key.get(path), 401, "unauthorized")
        same(first, api.post("/api/sessions", json=body, headers=keyed("k")))
        again = api.post(f"{path}/heartbeat", json={"metadata": {"n": 1}}, headers=keyed("k"))
        same(beat, again)
        same(swept, api.post("/api/sessions/detect-failures", headers=keyed("k")))
        assert ok(api.get("/api/sessions"))["total_count"] == 1
        gone(api.delete(path, headers=keyed("k")))


def test_clients_with_names_of_their_own_do_not_meet(database: str, tmp_path: Path) -> None:
    """Given one idempotency key from two names, a nameless key and another namespace: four."""
    keys = f"{OLD},ci@default:{NEW},desk@default:{OTHER},team:{uuid4()}"
    body = {"hostname": "odin", "docker_slots": []}
    with Server(database, tmp_path, API_KEYS=keys) as server:
        made = set()
        for key in (entry.rpartition(":")[2] for entry in keys.split(",")):
            with Api(server.url, key, "") as api:
                replies = [
                    api.post("/api/machines", json=body, headers=keyed("1")) for _ in range(2)
                ]
                same(*replies)
                made.add(ok(replies[0], 201)["machine_id"])
        assert len(made) == 4


def test_a_receipt_of_the_earlier_form_still_counts(database: str, tmp_path: Path) -> None:
    """Given a reply that an earlier version kept under the key's hash, then it is repeated."""
    body = place()
    with (
        Server(database, tmp_path, API_KEYS=f"{OLD},{NEW}") as server,
        Api(server.url, OLD, "") as api,
        Api(server.url, NEW, "") as other,
    ):
        first = api.post("/api/sessions", json=body, headers=keyed("k"))
        ok(first, 201)
        digest = hashlib.sha256(OLD.encode()).hexdigest()[:8]
        request = f"{digest}\nPOST\n/api/sessions\nk"
        earlier = hashlib.sha256(request.encode()).hexdigest()
        with psycopg.connect(database) as owner:
            owner.execute("UPDATE receipts SET receipt_key = %s", [earlier])
        same(first, api.post("/api/sessions", json=body, headers=keyed("k")))
        refused(
            api.post("/api/sessions", json=place(), headers=keyed("k")), 422, "idempotency_mismatch"
        )
        # It says nothing about another key.
        found = other.post("/api/sessions", json=place(), headers=keyed("k"))
        assert orjson.loads(found.content)["session_id"] != first.json()["session_id"]
