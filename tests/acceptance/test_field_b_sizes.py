"""Field cases 6: sizes that add up are bounded, where they are kept and where they are told."""

from __future__ import annotations

import orjson
import pytest

from tests.acceptance.serving import Api, Json, invalid, name, ok, position, refused

MAX_METADATA = 64 * 1024
MAX_PAGE = 8 * 1024 * 1024
KIB = 1024


def instance(api: Api) -> str:
    body = {"project": name("project"), "instance_type": "PS"}
    return str(ok(api.post("/api/instances", json=body), 201)["instance_id"])


def merging(api: Api) -> list[tuple[str, str, Json]]:
    """Every request that merges metadata into something that is there: verb, path, other fields."""
    session = api.session()
    task = api.task(session)
    machine = api.machine()
    failing = api.session()
    return [
        ("PATCH", f"/api/sessions/{session['session_id']}", {}),
        ("POST", f"/api/sessions/{session['session_id']}/heartbeat", {}),
        ("PATCH", f"/api/tasks/{task['task_id']}", {}),
        ("PATCH", f"/api/tasks/{task['task_id']}", {"status": "in_progress"}),
        ("PATCH", f"/api/machines/{machine['machine_id']}", {}),
        ("POST", f"/api/machines/{machine['machine_id']}/heartbeat", {}),
        (
            "POST",
            "/api/machines",
            {
                "machine_id": machine["machine_id"],
                "hostname": machine["hostname"],
                "docker_slots": [],
            },
        ),
        (
            "POST",
            f"/api/sessions/{failing['session_id']}/mark-failed",
            {"error_message": "e"},
        ),
    ]


def test_what_merges_is_64_kib_in_all(api: Api) -> None:
    """Forty beats with 20 KiB each under names of their own: 400 naming metadata, all else kept."""
    for verb, path, fields in merging(api)[:-1]:
        taken, last = 0, {}
        for number in range(40):
            given = {**fields, "metadata": {f"{path[-9:]}{number}": "x" * 20 * KIB}}
            response = api.request(verb, path, json=given)
            if response.status_code == 400:
                invalid(response, "metadata")
            else:
                assert response.status_code < 300, response.text
                taken, last = taken + 1, response.json()["metadata"]
            fields = {k: v for k, v in fields.items() if k != "status"}
        assert taken <= 3, path
        # What makes room goes on, and so does what says nothing.
        room = {**fields, "metadata": dict.fromkeys(last)}
        assert api.request(verb, path, json=room).json()["metadata"] == {}
        assert api.request(verb, path, json=fields).status_code < 300


def test_the_last_of_them_is_whole_or_not_at_all(api: Api) -> None:
    """A refused failure leaves the session as it was: a batch is not half carried out."""
    verb, path, fields = merging(api)[-1]
    session_id = path.split("/")[3]
    api.patch_session(session_id, metadata={"a": "x" * 50 * KIB})
    task = api.task(api.get_session(session_id), "in_progress")
    more = {**fields, "metadata": {"b": "x" * 20 * KIB}}
    invalid(api.request(verb, path, json=more), "metadata")
    assert api.get_session(session_id)["status"] == "active"
    assert api.get_task(task["task_id"])["status"] == "in_progress"
    ok(api.request(verb, path, json={"error_message": "e" * 10_000}))
    patch = {"status": "completed", "metadata": {"b": "x" * 20 * KIB}}
    invalid(
        api.patch(f"/api/sessions/{api.session()['session_id']}", json=_over(patch)), "metadata"
    )


def _over(patch: Json) -> Json:
    return {**patch, "metadata": {**patch["metadata"], "c": "x" * 60 * KIB}}


@pytest.mark.parametrize("size", [MAX_METADATA - 10, MAX_METADATA + 1])
def test_metadata_is_64_kib_from_the_beginning(api: Api, size: int) -> None:
    """Of sessions, tasks, machines and events: bytes of JSON, not characters."""
    session = api.session()
    instance_id = instance(api)
    base = {"project_id": name("p"), "machine_id": name("m")}
    for text in ("x" * size, "é" * (size // 2)):
        metadata = {"a": text[: -8 if size < MAX_METADATA and text[0] == "x" else None]}
        for path, fields in (
            ("/api/sessions", base),
            (
                "/api/tasks",
                {
                    "session_id": session["session_id"],
                    "project_id": session["project_id"],
                    "task_name": "t",
                },
            ),
            ("/api/machines", {"hostname": name("h"), "docker_slots": []}),
            (
                f"/api/instances/{instance_id}/events",
                {"event_type": "epic_started", "event_data": {"epic_id": "e"}},
            ),
        ):
            given = {
                **fields,
                "metadata": metadata,
                **({"replace": True} if fields is base else {}),
            }
            response = api.post(path, json=given)
            if size > MAX_METADATA:
                invalid(response, "metadata")
            else:
                assert response.status_code == 201, response.text


def test_what_a_session_s_tasks_say_together_is_bounded(api: Api) -> None:
    session = api.session()
    body = {
        "session_id": session["session_id"],
        "project_id": session["project_id"],
        "task_name": "t",
        "metadata": {"a": "x" * 60 * KIB},
    }
    replies = [api.post("/api/tasks", json=body) for _ in range(80)]
    assert [reply.status_code for reply in replies[:60]] == [201] * 60
    invalid(replies[-1], "metadata")
    state = api.get(f"/api/sessions/{session['session_id']}/recovery-state")
    assert len(ok(state)["pending_tasks"]) == sum(r.status_code == 201 for r in replies)
    assert len(state.content) <= MAX_PAGE
    assert len(ok(state)["brief"]) < 20 * KIB


def test_names_that_stand_in_lists_are_short(api: Api) -> None:
    """An epic's, a service's, a pull request's name: 10,000 characters; texts may be longer."""
    instance_id = instance(api)
    path = f"/api/instances/{instance_id}/events"
    long = "x" * 10_001
    for event_type, data, field in (
        ("epic_started", {"epic_id": long}, "event_data.epic_id"),
        ("deployment_started", {"service": long}, "event_data.service"),
        ("pr_created", {"pr_url": long}, "event_data.pr_url"),
        ("test_started", {"epic_id": "e", "test_type": long}, "event_data.test_type"),
    ):
        invalid(api.post(path, json={"event_type": event_type, "event_data": data}), field)
    logged = {"event_type": "command_logged", "event_data": {"command": long}}
    ok(api.post(path, json=logged), 201)


@pytest.fixture
def large(api: Api) -> tuple[str, int]:
    """An instance with 60 events of 200 KiB each, and the position before them."""
    instance_id = instance(api)
    registered = ok(api.get("/api/events"))["next_position"]
    for number in range(60):
        data = {"epic_id": f"e{number}", "text": "0123456789" * 20 * KIB}
        body = {"event_type": "epic_started", "event_data": data}
        ok(api.post(f"/api/instances/{instance_id}/events", json=body), 201)
    return instance_id, registered


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("by", ["cursor", "offset"])
def test_a_page_of_a_stream_s_events_is_at_most_8_mib(
    api: Api, large: tuple[str, int], order: str, by: str
) -> None:
    """12 MB of events: has_more, and the pages behind it have the rest, each event once."""
    path = f"/api/instances/{large[0]}/events"
    numbers: list[int] = []
    query: Json = {"limit": 1000, "order": order, "event_type": "epic_started"}
    sizes = []
    while True:
        response = api.get(path, params=query)
        page = ok(response)
        sizes.append(len(response.content))
        numbers += [event["sequence_num"] for event in page["events"]]
        assert page["total_count"] == 60
        if not page["has_more"]:
            break
        query = {k: v for k, v in query.items() if k not in ("cursor", "offset")}
        query[by] = page["next_cursor"] if by == "cursor" else len(numbers)
    assert numbers == sorted(numbers, reverse=order == "desc")
    assert len(set(numbers)) == len(numbers) == 60
    assert max(sizes) <= MAX_PAGE
    assert len(sizes) == 2


@pytest.mark.parametrize("character", ['"', "\\", "\x01", "x"])
def test_a_page_that_a_tool_is_told_is_at_most_8_mib_too(api: Api, character: str) -> None:
    """Given 12 MB of what is escaped in JSON, and twice in the text of a result."""
    instance_id = instance(api)
    text = character * (1_200 * KIB // len(orjson.dumps(character * 6)))
    for number in range(60):
        data = {"epic_id": f"e{number}", "text": text}
        body = {"event_type": "epic_started", "event_data": data}
        ok(api.post(f"/api/instances/{instance_id}/events", json=body), 201)
    numbers: list[int] = []
    arguments: Json = {"instance_id": instance_id, "limit": 1000, "event_type": "epic_started"}
    params = {"name": "mcp_meta_query_events", "arguments": arguments}
    while True:
        response = api.post(
            "/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
            headers={"Accept": "application/json, text/event-stream"},
        )
        assert len(response.content) <= MAX_PAGE
        page = ok(response)["result"]["structuredContent"]
        numbers += [event["sequence_num"] for event in page["events"]]
        assert page["total_count"] == 60
        if not page["has_more"]:
            break
        arguments["cursor"] = page["next_cursor"]
    assert page["next_cursor"] is None
    assert numbers == list(range(2, 62))


@pytest.mark.parametrize("types", [[], ["epic_started"], ["epic_started", "session_heartbeat"]])
def test_a_page_of_the_log_is_at_most_8_mib(
    api: Api, large: tuple[str, int], types: list[str]
) -> None:
    """Whoever follows the log by next_position gets every event, in pages of at most 8 MiB."""
    after, numbers, more = large[1], [], []
    while True:
        response = api.get(
            "/api/events", params={"after": after, "limit": 1000, "event_type": types}
        )
        page = ok(response)
        assert len(response.content) <= MAX_PAGE
        more.append(page.get("has_more", False))
        if not page["events"]:
            assert page["next_position"] == after
            break
        numbers += [event["position"] for event in page["events"]]
        after = page["next_position"]
        assert after == numbers[-1]
    assert numbers == list(range(large[1] + 1, large[1] + 61))
    assert more == [True, False, False]


def test_a_list_is_at_most_8_mib_too(api: Api) -> None:
    """Tasks with 60 KiB each and errors of 10,000 characters: a page ends, its cursor goes on."""
    sessions = [api.session() for _ in range(4)]
    for session in sessions:
        for _ in range(45):
            api.task(session, metadata={"a": "x" * 60 * KIB})
    query: Json = {"limit": 200}
    seen: list[str] = []
    while True:
        response = api.get("/api/tasks", params=query)
        page = ok(response)
        assert len(response.content) <= MAX_PAGE + KIB
        seen += [task["task_id"] for task in page["tasks"]]
        if page["next_cursor"] is None:
            break
        query = {"limit": 200, "cursor": page["next_cursor"]}
    assert len(set(seen)) == len(seen) == 180


def test_the_forest_and_the_registry_s_health_are_at_most_8_mib_too(api: Api) -> None:
    """Given so many instances that say much of themselves: has_more, and all are counted."""
    tags = [f"{number:02}" + "\U0001f333" * 98 for number in range(50)]
    why = "\U0001f333" * 10_000
    for _ in range(450):
        body = {"project": "forest", "instance_type": "PS", "tags": tags}
        instance_id = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        beat = {"activity": "waiting_for_human", "activity_reason": why}
        ok(api.post(f"/api/instances/{instance_id}/heartbeat", json=beat))
    for path, entries in (("topology", "roots"), ("health", "instances")):
        response = api.get(f"/api/v1/registry/{path}")
        page = ok(response)
        assert len(response.content) <= MAX_PAGE
        assert page["total_count"] == 450
        assert 0 < len(page[entries]) < 450
        assert page["has_more"] is True


def test_an_error_names_a_hundred_fields_at_most(api: Api) -> None:
    """27,000 unknown keys, and a key of 200 KiB: a short error, which says that there are more."""
    session_id = api.session()["session_id"]
    many = {f"key{number}": 1 for number in range(20_000)}
    for verb, path, query in (
        ("POST", "/api/sessions", None),
        ("PATCH", f"/api/sessions/{session_id}", None),
        ("POST", "/api/sessions/detect-failures", None),
        ("GET", "/api/sessions", {f"key{number}": 1 for number in range(500)}),
    ):
        body = None if verb == "GET" else many
        response = api.request(verb, path, json=body, params=query)
        error = refused(response, 400, "validation_error")
        assert len(error["errors"]) == 100
        assert "more" in error["message"]
        assert len(response.content) < 32 * KIB
    large: list[Json] = [{"k" * 200 * KIB: 1}, {"metadata": {"k" * 100 * KIB: "x" * 100}}]
    for given in large:
        response = api.patch(f"/api/sessions/{session_id}", json=given)
        assert len(response.content) < 4 * KIB
        refused(response, 400, "validation_error")


def test_a_status_stays_small_whatever_was_sent(api: Api) -> None:
    """Given twenty sessions that sent all they could, then every reply is of a bounded size."""
    for _ in range(20):
        session_id = api.session()["session_id"]
        for number in range(5):
            response = api.post(
                f"/api/sessions/{session_id}/heartbeat",
                json={"metadata": {f"k{number}": "x" * 60 * KIB}},
            )
            assert response.status_code in (200, 400)
            if response.status_code == 200:
                assert position(response)
    response = api.get("/api/sessions/active", params={"limit": 100})
    assert len(ok(response)["sessions"]) == 20
    assert len(response.content) < 20 * 70 * KIB
