"""What is not found is named: its kind and its id, over HTTP, MCP and at a desk."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.mcp_client import Mcp
from tests.acceptance.serving import Api, Json

# Nobody is called so; the same in every process that collects the tests.
NOBODY = "8a3c2d62-5f9b-4f1a-8d7a-0c4f6e1b2d39"
Ask = Callable[[Api, str], httpx.Response]


def get(path: str) -> Ask:
    return lambda api, an_id: api.get(path.format(quote(an_id, safe="")))


def post(path: str, **body: object) -> Ask:
    return lambda api, an_id: api.post(path.format(quote(an_id, safe="")), json=body)


def patch(path: str, **body: object) -> Ask:
    return lambda api, an_id: api.patch(path.format(quote(an_id, safe="")), json=body)


def delete(path: str) -> Ask:
    return lambda api, an_id: api.delete(path.format(quote(an_id, safe="")))


CASES: list[tuple[str, str, Ask]] = [
    ("session", NOBODY, get("/api/sessions/{}")),
    ("session", NOBODY, get("/api/sessions/{}/health")),
    ("session", NOBODY, get("/api/sessions/{}/recovery-state")),
    ("session", NOBODY, post("/api/sessions/{}/heartbeat")),
    ("session", NOBODY, post("/api/sessions/{}/mark-failed", error_message="x")),
    ("session", NOBODY, patch("/api/sessions/{}", status="completed")),
    ("session", NOBODY, delete("/api/sessions/{}")),
    ("session", "no-uuid", get("/api/sessions/{}")),
    ("task", NOBODY, get("/api/tasks/{}")),
    ("task", NOBODY, patch("/api/tasks/{}", status="completed")),
    ("task", NOBODY, delete("/api/tasks/{}")),
    ("task", "no-uuid", get("/api/tasks/{}")),
    ("machine", "tower", get("/api/machines/{}")),
    ("machine", "tower", post("/api/machines/{}/heartbeat")),
    ("machine", "башня", patch("/api/machines/{}", status="offline")),
    ("instance", "odin-PS-8f4a2b", get("/api/instances/{}")),
    ("instance", "odin-PS-8f4a2b", post("/api/instances/{}/heartbeat")),
    ("instance", "odin-PS-8f4a2b", post("/api/instances/{}/close")),
    ("instance", "odin-PS-8f4a2b", get("/api/instances/{}/events")),
    ("instance", "odin-PS-8f4a2b", get("/api/instances/{}/replay")),
    ("instance", "odin-PS-8f4a2b", get("/api/instances/{}/resume")),
    ("instance", "odin-PS-8f4a2b", post("/api/instances/{}/checkpoints", label="l", state={})),
    ("stream", "session-nobody", get("/api/streams/{}/events")),
    ("stream", "nothing-at-all", get("/api/streams/{}/replay")),
    ("claim", "item-7", get("/api/claims/{}")),
    ("work_item", "item-7", get("/api/work-items/{}")),
]


@pytest.mark.parametrize(("kind", "an_id", "ask"), CASES)
def test_it_is_named_over_http(api: Api, kind: str, an_id: str, ask: Ask) -> None:
    reply = ask(api, an_id)

    assert reply.status_code == 404
    assert reply.json()["code"] == f"{kind}_not_found"
    assert an_id in reply.json()["message"]
    assert reply.json()["details"] == {"kind": kind, "id": an_id}


def test_an_id_in_a_body_is_named_too(api: Api) -> None:
    body = {"session_id": NOBODY, "project_id": "p", "task_name": "t"}
    claim = {"item_id": "a", "instance_id": "odin-PS-8f4a2b"}
    parent = {"project": "p", "instance_type": "PS", "parent_id": "odin-MS-8f4a2b"}
    for path, given, named in (
        ("/api/tasks", body, NOBODY),
        ("/api/claims", claim, "odin-PS-8f4a2b"),
        ("/api/instances", parent, "odin-MS-8f4a2b"),
    ):
        refused = api.post(path, json=given)
        assert refused.status_code == 400
        assert named in refused.json()["message"]


@pytest.mark.parametrize("an_id", ["x" * 5_000, "\x1b[2J", "\u202eevil", "{}", "{0.x}"])
def test_what_is_named_is_harmless(api: Api, an_id: str) -> None:
    reply = api.get(f"/api/streams/{quote(an_id, safe='')}/events")
    told: Json = reply.json()

    assert reply.status_code == 404
    assert told["message"].isprintable()
    assert len(told["message"]) < 300
    assert told["details"]["id"] in told["message"]


def test_an_id_with_a_character_that_nothing_can_have_is_named(api: Api) -> None:
    told = api.get("/api/machines/a%00b")

    assert told.status_code == 404
    assert told.json()["details"] == {"kind": "machine", "id": "a\\u0000b"}


def test_it_is_named_to_models(api: Api) -> None:
    mcp = Mcp(api, "auto")
    gone = "odin-PS-8f4a2b"
    for tool in ("heartbeat", "get_instance_details", "query_events", "close_instance"):
        told = mcp.refused(f"mcp_meta_{tool}", "instance_not_found", instance_id=gone)
        assert gone in told["message"]
        assert told["details"]["id"] == gone
