"""Ids of people's making: what can be created can be addressed, under one form (field cases 20)."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta

import orjson
import pytest

from tests.acceptance.past import Past
from tests.acceptance.queue import Queue, quoted
from tests.acceptance.serving import Api, Json, invalid, ok, refused

ADDRESSABLE = [
    "a/b",
    "/a",
    "a/",
    "a//b",
    "a%2Fb",
    "50%",
    "a?b=c&d",
    "a#b",
    "a+b",
    "a b",
    "a..b",
    "../a",
    "a/../b",
    "a/.",
    "...",
    ".hidden",
    "a\\b",
    "a;b,c:d@e",
    "claim-next",
    "release",
    "complete",
    "a/complete",
    "a/release",
    "a/verify",
    "a/heartbeat",
    "a/events",
    "a/replay",
    "a/reopen",
    "проект/й",
    "👩\u200d💻",
    "🚀" * 200,
    "/" * 200,
]
UNSEEN = ["a\nb", "a\n", "\x1b[2J", "a\x7fb", "a\u200bb", "a\u202eb", "\ufeffa", "a\u2028b"]


@pytest.fixture
def queue(api: Api) -> Queue:
    """The test's own queue."""
    return Queue(api)


@pytest.mark.parametrize("item", ADDRESSABLE)
def test_an_item_of_any_id_is_claimed_guarded_released_and_completed(
    queue: Queue, item: str
) -> None:
    holder = queue.api.session()
    assert queue.add(item)["item_id"] == item
    fence = queue.claim(item, holder)["fence"]

    assert queue.item(item)["item_id"] == queue.get_claim(item)["item_id"] == item
    assert ok(queue.verify(item, fence))["valid"] is True
    events = ok(queue.api.get(f"/api/streams/{quoted(f'claim-{item}')}/events"))
    assert events["total_count"] == 2
    ok(queue.api.get(f"/api/streams/{quoted(f'claim-{item}')}/replay"))
    assert ok(queue.release(item, holder))["item_id"] == item
    queue.claim(item, holder)
    assert ok(queue.complete(item, holder))["status"] == "completed"


@pytest.mark.parametrize("machine", ADDRESSABLE)
def test_a_machine_of_any_id_beats_and_changes(api: Api, machine: str) -> None:
    path = f"/api/machines/{quoted(machine)}"
    api.machine(machine_id=machine)

    assert ok(api.post(f"{path}/heartbeat", json={}))["machine_id"] == machine
    assert ok(api.patch(path, json={"docker_slots": [1]}))["machine_id"] == machine
    assert ok(api.get(path))["docker_slots"] == [1]
    assert api.session(machine_id=machine, docker_slot=1)["machine_id"] == machine


def test_ids_that_are_alike_but_for_an_escape_are_two(queue: Queue) -> None:
    for number, item in enumerate(["a/b", "a%2Fb", "a%252Fb", "a//b"]):
        queue.add(item, priority=number)

    assert [queue.item(i)["priority"] for i in ("a/b", "a%2Fb", "a%252Fb", "a//b")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("one", "other"), [("café", "cafe\u0301"), ("a b", "a\u00a0b"), ("item", "  item\u3000")]
)
def test_ids_that_look_alike_are_one_wherever_they_stand(
    queue: Queue, one: str, other: str
) -> None:
    holder = queue.api.session()
    assert queue.add(other)["item_id"] == one
    fence = queue.claim(one, holder)["fence"]

    assert queue.ask(other, holder).status_code == 200
    assert ok(queue.verify(other, fence))["valid"] is True
    fenced: Json = {"claim": {"item_id": other, "fence": fence}}
    queue.api.beat(holder["session_id"], **fenced)
    assert queue.add("after", depends_on=[other, one])["blocked_by"] == [one]
    assert queue.item(other)["item_id"] == one
    ok(queue.complete(other, holder))
    assert queue.item("after")["blocked_by"] == []


@pytest.mark.parametrize(
    "item", [*UNSEEN, "", "  ", ".", "..", " .. ", "@place", " @place", "x" * 201]
)
def test_an_id_that_nobody_could_see_or_address_is_refused(queue: Queue, item: str) -> None:
    holder = queue.api.session()

    for reply in (queue.offer(item), queue.ask(item, holder)):
        assert invalid(reply, "item_id")["errors"][0]["message"]
    reply = queue.offer("x", depends_on=["y", item])
    assert [e["field"] for e in refused(reply, 400, "validation_error")["errors"]] == [
        "depends_on.1"
    ]
    fenced = {"claim": {"item_id": item, "fence": 1}}
    reply = queue.api.post(f"/api/sessions/{holder['session_id']}/heartbeat", json=fenced)
    assert refused(reply, 400, "validation_error")["errors"][0]["field"] == "claim.item_id"
    assert queue.items() == []


@pytest.mark.parametrize("machine", [".", "..", " .. "])
def test_nothing_goes_to_a_machine_that_no_url_can_name(api: Api, machine: str) -> None:
    session = api.session()
    api.fail(session["session_id"])

    invalid(api.recover(session["session_id"], machine), "new_machine_id")
    body = {"project_id": "p", "machine_id": machine}
    invalid(api.post("/api/sessions", json=body), "machine_id")
    assert api.get_session(session["session_id"])["status"] == "failed"


@pytest.mark.parametrize("text", UNSEEN)
def test_what_else_people_name_is_refused_likewise(api: Api, text: str) -> None:
    invalid(api.post("/api/machines", json={"hostname": text, "docker_slots": []}), "hostname")
    body = {"hostname": "h", "docker_slots": [], "machine_id": text}
    invalid(api.post("/api/machines", json=body), "machine_id")
    invalid(api.post("/api/sessions", json={"project_id": text, "machine_id": "m"}), "project_id")
    invalid(api.post("/api/instances", json={"project": text, "instance_type": "PS"}), "project")


@pytest.mark.parametrize("text", UNSEEN)
def test_what_addresses_nothing_stops_no_work(api: Api, text: str) -> None:
    ok(api.post("/api/work-items", json={"item_id": "i", "track": text}), 201)
    body = {"project": "p", "instance_type": "PS", "tags": [text], "name": text, "hostname": text}
    instance = ok(api.post("/api/instances", json=body), 201)
    path = f"/api/instances/{instance['instance_id']}/checkpoints"
    ok(api.post(path, json={"label": text, "state": {}}), 201)


def test_the_refusal_says_which_character_it_is(queue: Queue) -> None:
    body = invalid(queue.offer("a\u202eb"), "item_id")

    assert "U+202E" in body["message"]


def test_tracks_and_tags_have_one_form_too(queue: Queue) -> None:
    queue.add("a", track="cafe\u0301 ")
    body = {"project": "p", "instance_type": "PS", "tags": [" cafe\u0301"], "name": "cafe\u0301"}
    ok(queue.api.post("/api/instances", json=body), 201)

    for form in ("café", "cafe\u0301"):
        assert [item["item_id"] for item in queue.items(track=form)] == ["a"]
        for criterion in ("tag", "name"):
            path = "/api/v1/registry/discover"
            assert ok(queue.api.get(path, params={criterion: form}))["total_count"] == 1
    assert queue.next(queue.api.session(), track="cafe\u0301") == "a"


@pytest.mark.parametrize("item", ["a\nb", "a\n", "\na/b"])
def test_an_item_from_before_whose_id_has_a_line_break_can_be_dealt_with(
    queue: Queue, past: Past, item: str
) -> None:
    """Given one that was claimed before ids had a form, then it is completed, or removed."""
    holder = past.session(timedelta(seconds=1), items=[item])

    ok(queue.verify(item, queue.get_claim(item)["fence"]))
    assert ok(queue.complete(item, holder))["status"] == "completed"
    assert queue.api.delete(f"/api/work-items/{quoted(item)}").status_code == 204
    refused(queue.api.get(f"/api/work-items/{quoted(item)}"), 404, "work_item_not_found")


def test_a_path_of_what_cannot_exist_finds_nothing(api: Api) -> None:
    for item in ("a%00b", "a%0Ab", "%20", "%E2%80%8B", "%FF"):
        assert api.get(f"/api/work-items/{item}").status_code == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize(
    "item", ["a/../b", "50%", "a b+c", "проект", "a?b#c", "claim-next/complete"]
)
def test_curl_reaches_it_with_percent_signs(queue: Queue, item: str) -> None:
    holder = queue.api.session()
    queue.claim(item, holder)
    body = orjson.dumps({"session_id": holder["session_id"]}).decode()
    key = queue.api.key
    assert key is not None
    url = f"{str(queue.api.base_url).rstrip('/')}/api/work-items/{quoted(item)}/complete"
    command = ["curl", "-sS", "-X", "POST", "-H", f"X-API-Key: {key}", "-d", body, url]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)

    assert orjson.loads(done.stdout)["status"] == "completed", done.stdout
