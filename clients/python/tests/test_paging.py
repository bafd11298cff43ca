"""Whole lists, gathered page by page while they change."""

from __future__ import annotations

from typing import Any

from holdfast import Client
from holdfast.cli.service import gathered
from tests.acceptance.serving import Api, name, ok


def test_all_open_items_are_gathered_while_others_claim(api: Api, client: Client) -> None:
    """What stays open is in the list once, whatever is taken from its beginning meanwhile."""
    for number in range(50):
        ok(api.post("/api/work-items", json={"item_id": f"i{number:02}", "priority": 1}), 201)
    session_id = api.session()["session_id"]

    def ask(**query: Any) -> Any:
        page = client.work_items.list(**query)
        for _ in range(3):
            ok(api.post("/api/work-items/claim-next", json={"session_id": session_id}), 201)
        return page

    whole = gathered(ask, "work_items", page=10, status="open")
    seen = [item["item_id"] for item in whole["work_items"]]
    assert len(seen) == len(set(seen))
    left = client.work_items.list(status="open", limit=200)["work_items"]
    assert left
    assert {item["item_id"] for item in left} <= set(seen)
    assert (whole["has_more"], whole["next_cursor"]) == (False, None)


def test_no_more_are_gathered_than_asked_for(api: Api, client: Client) -> None:
    for _ in range(9):
        api.session(project_id="p", machine_id=name("m"))
    some = gathered(client.sessions.list, "sessions", page=2, most=5)
    assert (len(some["sessions"]), some["total_count"], some["has_more"]) == (5, 9, True)
    rest = client.sessions.list(cursor=some["next_cursor"])
    assert len(rest["sessions"]) == 4
    assert rest["next_cursor"] is None
    ids = {one["session_id"] for page in (some, rest) for one in page["sessions"]}
    assert len(ids) == 9


def test_every_list_of_the_client_takes_a_cursor(api: Api, client: Client) -> None:
    instance_id = client.instances.register("p", "PS")["instance_id"]
    for _ in range(2):
        client.instances.register("p", "PS")
        client.machines.register(name("h"), [])
        session = api.session()
        api.task(session)
        body = {"item_id": name("item"), "session_id": session["session_id"]}
        ok(api.post("/api/claims", json=body), 201)
        client.instances.beat(instance_id)
    lists: list[tuple[Any, str]] = [
        (client.sessions.list, "sessions"),
        (client.sessions.active, "sessions"),
        (client.tasks.list, "tasks"),
        (client.machines.list, "machines"),
        (client.instances.list, "instances"),
        (client.registry.discover, "instances"),
        (client.claims.list, "claims"),
        (client.work_items.list, "work_items"),
        (lambda **page: client.instances.events(instance_id, **page), "events"),
        (lambda **page: client.history.events(f"instance-{instance_id}", **page), "events"),
    ]
    for ask, plural in lists:
        first = ask(limit=1)
        second = ask(limit=1, cursor=first["next_cursor"])
        assert first[plural] != second[plural]
        assert len(second[plural]) == 1, plural
