"""Field cases 8: pages by cursor neither skip nor repeat what stays while others change."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.acceptance.serving import Api, Json, invalid, name, ok

LISTS = (
    "/api/sessions",
    "/api/sessions/active",
    "/api/sessions/archived",
    "/api/tasks",
    "/api/machines",
    "/api/instances",
    "/api/v1/registry/instances",
    "/api/v1/registry/discover",
    "/api/claims",
    "/api/work-items",
    "/api/serving",
)
PLURALS = ("sessions", "tasks", "machines", "instances", "claims", "work_items", "events")


def entries(page: Json) -> list[Json]:
    (plural,) = page.keys() & set(PLURALS)
    found: list[Json] = page[plural]
    return found


def pages(
    api: Api, path: str, between: Callable[[int], None] = lambda _: None, **query: Any
) -> list[list[Json]]:
    """All pages of a list, by cursor; something happens between two pages."""
    found: list[list[Json]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = ok(api.get(path, params={**query, **cursor}))
        found.append(entries(page))
        assert page["has_more"] is (page["next_cursor"] is not None)
        if page["next_cursor"] is None:
            return found
        assert entries(page)
        cursor = {"cursor": page["next_cursor"]}
        between(len(found))


def ids(found: list[list[Json]], field: str) -> list[str]:
    return [entry[field] for page in found for entry in page]


def instance(api: Api, project: str) -> str:
    body = {"project": project, "instance_type": "PS"}
    return str(ok(api.post("/api/instances", json=body), 201)["instance_id"])


def test_items_that_stay_open_are_all_seen_while_others_claim(api: Api) -> None:
    """1,200 open items, the best claimed away between two pages: each that stays is seen, once."""
    for number in range(1_200):
        body = {"item_id": f"item-{number:04}", "priority": number % 5}
        assert api.post("/api/work-items", json=body).status_code == 201
    session_id = api.session()["session_id"]
    claimed: set[str] = set()

    def claim(_: int) -> None:
        for _ in range(20):
            body = {"session_id": session_id}
            claim = ok(api.post("/api/work-items/claim-next", json=body), 201)
            claimed.add(claim["item_id"])

    seen = ids(pages(api, "/api/work-items", claim, status="open", limit=100), "item_id")
    assert len(seen) == len(set(seen))
    stayed = {f"item-{n:04}" for n in range(1_200)} - claimed
    assert claimed
    assert stayed <= set(seen)


@pytest.mark.parametrize("path", ["/api/instances", "/api/v1/registry/discover"])
def test_instances_that_beat_while_their_list_is_read_are_seen_once(api: Api, path: str) -> None:
    """The first page is the latest to beat; all beat, some come and some close meanwhile."""
    made = [instance(api, f"p{n % 3}") for n in range(25)]
    latest = ok(api.get(path, params={"limit": 3}))["instances"]
    closed: list[str] = []

    def live(page: int) -> None:
        for one in reversed(made):
            if one not in closed:
                ok(api.post(f"/api/instances/{one}/heartbeat", json={}))
        instance(api, "p0")
        closed.append(made[page])
        ok(api.post(f"/api/instances/{made[page]}/close"))

    found = pages(api, path, live, limit=4)
    assert ids(found, "instance_id")[:3] == [one["instance_id"] for one in latest]
    seen = ids(found, "instance_id")
    assert len(seen) == len(set(seen))
    assert set(made) - set(closed) <= set(seen)
    of_one = ids(pages(api, path, project="p1", limit=2), "project")
    assert set(of_one) == {"p1"}
    assert len(of_one) == len([one for one in made if one.startswith("p1-")])


def test_live_sessions_that_beat_while_their_list_is_read_are_seen_once(api: Api) -> None:
    made = [api.session()["session_id"] for _ in range(17)]
    ended: list[str] = []

    def live(page: int) -> None:
        for one in made:
            if one not in ended:
                api.beat(one)
        api.session()
        ended.append(made[-page])
        api.fail(made[-page])

    seen = ids(pages(api, "/api/sessions/active", live, limit=3), "session_id")
    assert len(seen) == len(set(seen))
    assert set(made) - set(ended) <= set(seen)


def test_sessions_tasks_machines_and_claims_are_seen_once_while_others_come_and_go(
    api: Api,
) -> None:
    sessions = [api.session() for _ in range(9)]
    tasks = [api.task(session)["task_id"] for session in sessions for _ in range(2)]
    machines = [api.machine()["machine_id"] for _ in range(9)]
    for session in sessions:
        for _ in range(2):
            body = {"item_id": name("item"), "session_id": session["session_id"]}
            ok(api.post("/api/claims", json=body), 201)
    held = {claim["item_id"] for claim in ok(api.get("/api/claims"))["claims"]}
    gone: set[str] = set()

    def come_and_go(_: int) -> None:
        one = api.session()
        api.task(one)
        api.machine()
        ok(
            api.post(
                "/api/claims", json={"item_id": name("item"), "session_id": one["session_id"]}
            ),
            201,
        )
        if sessions and len(gone) < 3:
            left = sessions[len(gone)]["session_id"]
            gone.add(left)
            assert api.delete(f"/api/sessions/{left}").status_code == 204

    for path, field, made in (
        ("/api/sessions", "session_id", {one["session_id"] for one in sessions}),
        ("/api/tasks", "task_id", set(tasks)),
        ("/api/machines", "machine_id", set(machines)),
        ("/api/claims", "item_id", held),
    ):
        found = pages(api, path, come_and_go, limit=4)
        seen = ids(found, field)
        assert len(seen) == len(set(seen)), path
        left = {entry[field] for entry in entries(ok(api.get(path, params={"limit": 100})))}
        assert made & left <= set(seen), path


def test_events_are_paged_both_ways_while_more_are_recorded(api: Api) -> None:
    session_id = api.session()["session_id"]
    for number in range(10):
        api.patch_session(session_id, metadata={"n": number})
    path = f"/api/streams/session-{session_id}/events"

    def more(_: int) -> None:
        api.beat(session_id)

    total = ok(api.get(path))["total_count"]
    for order, kind in (("asc", {}), ("desc", {}), ("desc", {"event_type": "session_updated"})):
        found = ids(pages(api, path, more, order=order, limit=3, **kind), "sequence_num")
        assert found == sorted(set(found), reverse=order == "desc")
        assert len(found) >= (10 if kind else total)


def test_a_cursor_is_of_its_list_and_filters_alone(api: Api) -> None:
    """Another list's, other filters', a made-up one, or one beside an offset: 400, named."""
    for _ in range(3):
        api.task(api.session())
        api.machine()
        instance(api, "p")
    query = {"limit": 1}
    cursors = {
        path: ok(api.get(path, params=query))["next_cursor"]
        for path in ("/api/sessions", "/api/sessions/active", "/api/tasks", "/api/instances")
    }
    assert all(cursors.values())
    for path in LISTS:
        for bad in ("", "x", "null", "W10=", "e30=", "8J%2BSqQ==", "a" * 9_000, "é"):
            invalid(api.get(path, params={"cursor": bad}), "cursor")
        for other, cursor in cursors.items():
            if other.rsplit("/", 1)[-1] not in path or (other, path) == ("/api/sessions", LISTS[1]):
                invalid(api.get(path, params={"cursor": cursor}), "cursor")
    of_sessions = cursors["/api/sessions"]
    invalid(api.get("/api/sessions", params={"cursor": of_sessions, "status": "active"}), "cursor")
    both = api.get("/api/sessions", params={"cursor": of_sessions, "offset": 1})
    invalid(both, "cursor", "offset")
    ok(api.get("/api/sessions", params={"cursor": of_sessions, "offset": 0}))
    assert len(ok(api.get("/api/sessions", params={"cursor": of_sessions}))["sessions"]) == 2


def test_offsets_go_on_working(api: Api) -> None:
    made = [api.session()["session_id"] for _ in range(5)]
    found: list[str] = []
    for offset in (0, 2, 4, 6):
        page = ok(api.get("/api/sessions", params={"limit": 2, "offset": offset}))
        assert (page["total_count"], page["offset"], page["limit"]) == (5, offset, 2)
        assert page["has_more"] is (offset < 4)
        found += [one["session_id"] for one in page["sessions"]]
    assert found == made[::-1]


def test_numbers_in_a_forged_cursor_are_harmless(api: Api) -> None:
    """A cursor can be written by hand: it names a place, and nothing that cannot be asked for."""
    for _ in range(3):
        ok(api.post("/api/work-items", json={"item_id": name("item")}), 201)
    cursor = ok(api.get("/api/work-items", params={"limit": 1}))["next_cursor"]
    scope, past, seen = orjson.loads(base64.urlsafe_b64decode(cursor))
    for forged in (
        [scope, [2**63, 1], seen],
        [scope, [1.5, 1], seen],
        [scope, [True, 1], seen],
        [scope, ["x", 1], seen],
        [scope, [*past, 1], seen],
        [scope, past[:1], seen],
        [scope, past, 7],
        [scope, past, ["\x00"]],
        {"a": 1},
    ):
        again = base64.urlsafe_b64encode(orjson.dumps(forged)).decode()
        invalid(api.get("/api/work-items", params={"cursor": again}), "cursor")
    far = base64.urlsafe_b64encode(orjson.dumps([scope, [-(2**62), 2**62], []])).decode()
    assert ok(api.get("/api/work-items", params={"cursor": far}))["work_items"] == []
