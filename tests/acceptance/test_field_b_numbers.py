"""Field cases 4: no number that is sent may be more than it looks, on any face."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.mcp_client import LEGACY, MODERN
from tests.acceptance.serving import Api, Json, invalid, name, ok, refused
from tests.acceptance.test_mcp import _ENVELOPE, post

REFUSED = (
    "1e308",
    "1e16",
    "-1E+300",
    "1e-400",
    "5e-324",
    "1e007",
    "9007199254740993",
    "9007199254740993.0",
    "1.5E99",
    "0." + "0" * 400 + "1",
)
BESIDE = ("", r'"\u0041", ', '"1e308", ', "123456789012345, ")


def instance(api: Api) -> str:
    body = {"project": name("project"), "instance_type": "PS"}
    return str(ok(api.post("/api/instances", json=body), 201)["instance_id"])


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: str(number)[:20])
def test_a_number_that_grows_in_the_store_is_refused_by_every_body(
    api: Api, stored: Callable[[], int], number: str
) -> None:
    """Alone or beside what looks like one, in data, metadata, checkpoints and bulk: 400, named."""
    session_id, instance_id = api.session()["session_id"], instance(api)
    before = stored()
    for beside in BESIDE:
        value = f'{{"deep": [{{"n": [{beside}{number}]}}]}}'
        at = f"deep.0.n.{1 if beside else 0}"
        event = '{"event_type": "epic_started", "event_data": {"epic_id": "e", "x": ' + value + "}}"
        for verb, path, body, field in (
            ("POST", f"/api/instances/{instance_id}/events", event, f"event_data.x.{at}"),
            (
                "POST",
                f"/api/instances/{instance_id}/checkpoints",
                '{"label": "l", "state": ' + value + "}",
                f"state.{at}",
            ),
            ("PATCH", f"/api/sessions/{session_id}", f'{{"metadata": {value}}}', f"metadata.{at}"),
            (
                "POST",
                "/api/heartbeats",
                f'{{"heartbeats": [{{"session_id": "{session_id}", "metadata": {value}}}]}}',
                f"heartbeats.0.metadata.{at}",
            ),
        ):
            invalid(api.request(verb, path, content=body), field)
    body = f'{{"metrics": {{"response_time_ms": {number}}}}}'
    beat = f"/api/instances/{instance_id}/heartbeat"
    invalid(api.post(beat, content=body), "metrics.response_time_ms")
    assert stored() == before


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: str(number)[:20])
@pytest.mark.parametrize("mode", [MODERN, LEGACY])
def test_a_number_that_grows_in_the_store_is_refused_by_a_tool(
    api: Api, stored: Callable[[], int], mode: str, number: str
) -> None:
    instance_id = instance(api)
    before = stored()
    call = (
        '{"name": "mcp_meta_emit_event", "arguments": {"instance_id": "' + instance_id + '",'
        ' "event_type": "epic_started", "event_data": {"epic_id": "e", "x": [' + number + "]}}"
    )
    envelope = _ENVELOPE if mode == MODERN else ""
    answer = post(api, mode, "tools/call", call + envelope + "}").json()
    assert answer["result"]["isError"] is True
    told = answer["result"]["structuredContent"]
    assert told["code"] == "validation_error"
    assert [error["field"] for error in told["errors"]] == ["event_data.x.0"]
    assert stored() == before


@pytest.mark.parametrize(
    ("beside", "within"),
    [
        (', "noted": NaN', ""),
        ("", ', "_meta": {"seen": -Infinity}'),
        (', "noted": [1e400]', ""),
        ("", ', "arguments": {"instance_id": NaN}'),
    ],
)
def test_what_only_some_parsers_take_hides_no_number_from_a_tool(
    api: Api, stored: Callable[[], int], beside: str, within: str
) -> None:
    """Given a call that is JSON for the MCP library and not for HTTP: nothing of it is believed."""
    instance_id = instance(api)
    before = stored()
    for numbers in ("1e-300", "5e-324", ",".join(["1e-99"] * 30_000)):
        told = _called(api, instance_id, f"[{numbers}]", beside, within)
        assert told["code"] == "validation_error"
        assert told["errors"]
    assert stored() == before


def test_no_number_is_out_of_sight_for_a_tool(api: Api, stored: Callable[[], int]) -> None:
    """Given so many before it that its field is no longer told: it is refused all the same."""
    instance_id = instance(api)
    before = stored()
    told = _called(api, instance_id, f"[{'1,' * 11_000}1e-300]")
    assert told["code"] == "validation_error"
    assert "exponent" in told["message"]
    assert stored() == before


def _called(api: Api, instance_id: str, value: str, beside: str = "", within: str = "") -> Json:
    """What the tool says to an event with ``value``; the rest of the message as it is given."""
    data = f'{{"epic_id": "e", "x": {value}}}'
    arguments = (
        f'{{"instance_id": "{instance_id}", "event_type": "epic_started", "event_data": {data}}}'
    )
    # Of two members of one name the later one counts.
    params = f'{{"name": "mcp_meta_emit_event"{within}, "arguments": {arguments}}}'
    message = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {params}{beside}}}'
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    result = ok(api.post("/mcp", content=message, headers=headers))["result"]
    assert result["isError"] is True
    told: Json = result["structuredContent"]
    return told


def test_a_body_may_not_grow_in_the_store(api: Api, stored: Callable[[], int]) -> None:
    """Given 40,000 numbers that are written out with a hundred digits each, then 413."""
    instance_id = instance(api)
    before = stored()
    many = ",".join(["1e-99"] * 40_000)
    body = (
        '{"event_type": "epic_started", "event_data": {"epic_id": "e", "x": [' + many + "]}}"
    ).encode()
    assert len(body) < 256 * 1024
    path = f"/api/instances/{instance_id}/events"
    refused(api.post(path, content=body), 413, "payload_too_large")
    assert stored() == before
    ok(api.post(path, content=body.replace(b"1e-99", b"0.125")), 201)


def test_metadata_is_as_large_as_the_store_writes_it(api: Api) -> None:
    """Given ten thousand bytes of numbers that are a hundred and sixty thousand written out."""
    numbers = ",".join(["1e-99"] * 1_600)
    machine = '{"machine_id": "m", "hostname": "h", "docker_slots": [0], "metadata": '
    invalid(api.post("/api/machines", content=f'{machine}{{"n": [{numbers}]}}}}'), "metadata")
    path = f"/api/sessions/{api.session()['session_id']}"
    few = numbers[: 500 * 6 - 1]
    ok(api.patch(path, content=f'{{"metadata": {{"a": [{few}], "text": "1e-99"}}}}'))
    for verb, way in (("PATCH", path), ("POST", f"{path}/heartbeat")):
        invalid(api.request(verb, way, content=f'{{"metadata": {{"b": [{few}]}}}}'), "metadata")
    assert set(ok(api.get(path))["metadata"]) == {"a", "text"}


def test_numbers_at_the_edge_come_back_the_same(api: Api) -> None:
    """Given the largest, the smallest and the longest that are allowed."""
    numbers = [2**53, -(2**53), 1e-99, -1.25e-98, 9.007199254740992e15, 0.1, 0.0, 1e15]
    metadata = {"numbers": numbers, "text": 'A "1e308" [: 1e999'}
    session_id = api.session(metadata=metadata)["session_id"]
    assert api.get_session(session_id)["metadata"] == metadata
