"""Spec 9, 13, 17: what does not get in. Every refusal names its field and stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import httpx
import orjson
import pytest

from tests.acceptance.serving import Api, Json, Server, invalid, name, ok, refused

LIMIT = 256 * 1024
TOO_LONG = "x" * 201


class World(NamedTuple):
    """One of everything, and a client that sees it."""

    api: Api
    session: Json
    task: Json
    machine: Json

    def path(self, path: str) -> str:
        """The path with this world's ids in it."""
        return path.format(
            s=self.session["session_id"],
            t=self.task["task_id"],
            m=self.machine["machine_id"],
        )

    def send(self, verb: str, path: str, body: object) -> httpx.Response:
        """The reply to a request whose text fields name this world's things."""
        return self.api.request(verb, self.path(path), json=body)


@pytest.fixture(scope="module")
def world(server: Server) -> Iterator[World]:
    """One of everything."""
    with server.world() as api:
        session = api.session()
        yield World(api, session, api.task(session), api.machine())


@pytest.fixture(autouse=True)
def nothing_is_stored(world: World) -> Iterator[None]:
    """Every test here ends with as many events as it began."""
    before = head(world.api)
    yield
    assert head(world.api) == before


def head(api: Api) -> int:
    """The head of the client's log, by a command that changes nothing."""
    return int(api.post("/api/sessions/detect-failures").headers["x-event-position"])


CREATE: Json = {"project_id": "p", "machine_id": "m"}
TASK: Json = {"session_id": "s", "project_id": "p", "task_name": "t"}
MACHINE: Json = {"hostname": "h", "docker_slots": [1]}
NO_TEXTS: Sequence[object] = ("", "   ", "\n\t", TOO_LONG, None, 7, True, [], {})
NO_OBJECTS: Sequence[object] = (1, "x", [], True)
NO_THRESHOLDS: Sequence[object] = (29_999, 86_400_001, 0, -1, True, "60000", 60_000.5, [])


@pytest.mark.parametrize(
    ("verb", "path", "body", "fields"),
    [
        # Missing, blank, too long, of another type.
        ("POST", "/api/sessions", {}, ["machine_id", "project_id"]),
        *(
            ("POST", "/api/sessions", CREATE | {field: value}, [field])
            for field in ("project_id", "machine_id")
            for value in NO_TEXTS
        ),
        ("POST", "/api/sessions", CREATE | {"docker_slot": True}, ["docker_slot"]),
        ("POST", "/api/sessions", CREATE | {"docker_slot": "1"}, ["docker_slot"]),
        ("POST", "/api/sessions", CREATE | {"docker_slot": 1.5}, ["docker_slot"]),
        ("POST", "/api/sessions", CREATE | {"docker_slot": -1}, ["docker_slot"]),
        ("POST", "/api/sessions", CREATE | {"docker_slot": 2**31}, ["docker_slot"]),
        *(("POST", "/api/sessions", CREATE | {"metadata": v}, ["metadata"]) for v in NO_OBJECTS),
        ("POST", "/api/sessions", CREATE | {"replace": "yes"}, ["replace"]),
        ("POST", "/api/sessions", CREATE | {"replace": 1}, ["replace"]),
        *(
            ("POST", "/api/sessions", CREATE | {"stall_threshold_ms": v}, ["stall_threshold_ms"])
            for v in NO_THRESHOLDS
        ),
        *(
            ("POST", "/api/sessions", CREATE | {field: ""}, [field])
            for field in ("instance_id", "hostname", "tty", "codebase")
        ),
        # Unknown fields, also those that the service sets itself.
        *(
            ("POST", "/api/sessions", CREATE | {field: "x"}, [field])
            for field in ("session_id", "status", "colour", "namespace", "created_at")
        ),
        ("POST", "/api/sessions", {"a": 1, "b": 2}, ["a", "b", "machine_id", "project_id"]),
        ("PATCH", "/api/sessions/{s}", {"project_id": "p"}, ["project_id"]),
        ("PATCH", "/api/sessions/{s}", {"session_id": "p"}, ["session_id"]),
        ("PATCH", "/api/sessions/{s}", {"status": "gone"}, ["status"]),
        ("PATCH", "/api/sessions/{s}", {"metadata": [1]}, ["metadata"]),
        ("PATCH", "/api/sessions/{s}", {"current_task_id": ""}, ["current_task_id"]),
        ("PATCH", "/api/sessions/{s}", {"current_task_id": 5}, ["current_task_id"]),
        ("POST", "/api/sessions/{s}/heartbeat", {"status": "active"}, ["status"]),
        ("POST", "/api/sessions/{s}/heartbeat", {"metadata": "x"}, ["metadata"]),
        ("POST", "/api/sessions/{s}/heartbeat", {"current_task_id": " "}, ["current_task_id"]),
        ("POST", "/api/sessions/{s}/mark-failed", {}, ["error_message"]),
        ("POST", "/api/sessions/{s}/mark-failed", {"error_message": None}, ["error_message"]),
        ("POST", "/api/sessions/{s}/mark-stalled", {"error_message": "x"}, ["error_message"]),
        ("POST", "/api/sessions/{s}/archive", {"archived": True}, ["archived"]),
        ("POST", "/api/sessions/{s}/recover", {}, ["new_machine_id"]),
        ("POST", "/api/sessions/{s}/recover", {"new_machine_id": " "}, ["new_machine_id"]),
        (
            "POST",
            "/api/sessions/{s}/recover",
            {"new_machine_id": "m", "reset_failed_tasks": "true"},
            ["reset_failed_tasks"],
        ),
        ("POST", "/api/sessions/{s}/prepare-recovery", {"clear_machine": 1}, ["clear_machine"]),
        ("DELETE", "/api/sessions/{s}", {"force": True}, ["force"]),
        ("POST", "/api/sessions/detect-failures", {"now": True}, ["now"]),
        ("POST", "/api/sessions/cleanup", {"older_than_days": -1}, ["older_than_days"]),
        ("POST", "/api/tasks", {}, ["project_id", "session_id", "task_name"]),
        *(
            ("POST", "/api/tasks", TASK | {field: value}, [field])
            for field in TASK
            for value in ("", " ", *NO_TEXTS[4:])
        ),
        ("POST", "/api/tasks", TASK | {"status": "pending"}, ["status"]),
        ("POST", "/api/tasks", TASK | {"github_issue_id": 42}, ["github_issue_id"]),
        ("PATCH", "/api/tasks/{t}", {"status": "stalled"}, ["status"]),
        ("PATCH", "/api/tasks/{t}", {"status": "failed"}, ["error_message"]),
        ("PATCH", "/api/tasks/{t}", {"status": "failed", "error_message": ""}, ["error_message"]),
        ("PATCH", "/api/tasks/{t}", {"error_message": "x"}, ["error_message"]),
        ("PATCH", "/api/tasks/{t}", {"session_id": "x"}, ["session_id"]),
        ("PATCH", "/api/tasks/{t}", {"task_name": "x"}, ["task_name"]),
        ("POST", "/api/machines", {}, ["docker_slots", "hostname"]),
        ("POST", "/api/machines", MACHINE | {"hostname": " "}, ["hostname"]),
        ("POST", "/api/machines", MACHINE | {"machine_id": ""}, ["machine_id"]),
        ("POST", "/api/machines", MACHINE | {"active_sessions": []}, ["active_sessions"]),
        ("POST", "/api/machines", MACHINE | {"status": "online"}, ["status"]),
        ("PATCH", "/api/machines/{m}", {"status": "asleep"}, ["status"]),
        ("PATCH", "/api/machines/{m}", {"docker_slots": 3}, ["docker_slots"]),
        ("PATCH", "/api/machines/{m}", {"active_sessions": ["x"]}, ["active_sessions"]),
        ("POST", "/api/machines/{m}/heartbeat", {"status": "online"}, ["status"]),
    ],
)
def test_a_wrong_field_is_named(
    world: World, verb: str, path: str, body: object, fields: list[str]
) -> None:
    """Given a body with something wrong, then 400 names just that."""
    invalid(world.send(verb, path, body), *fields)


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        *(
            (path, {"limit": value}, "limit")
            for path in ("/api/sessions", "/api/tasks", "/api/machines")
            for value in ("0", "-1", "ten", "1.5", "true", "", "201", "9" * 30)
        ),
        ("/api/sessions", {"limit": "101"}, "limit"),
        ("/api/sessions/active", {"limit": "101"}, "limit"),
        ("/api/sessions/archived", {"limit": "101"}, "limit"),
        *(("/api/sessions", {"offset": value}, "offset") for value in ("-1", "x", "9" * 30)),
        ("/api/sessions", {"min_position": "-1"}, "min_position"),
        ("/api/sessions", {"status": "gone"}, "status"),
        ("/api/tasks", {"status": "stalled"}, "status"),
        ("/api/machines", {"status": "ON"}, "status"),
        ("/api/sessions", {"sort": "up"}, "sort"),
        ("/api/sessions/health", {"project_id": "x"}, "project_id"),
        ("/api/sessions/stalled", {"limit": "5"}, "limit"),
        ("/api/sessions/{s}", {"verbose": "1"}, "verbose"),
        ("/api/sessions/{s}", {"session_id": "x"}, "session_id"),
        ("/api/sessions/{s}/health", {"x": ""}, "x"),
        ("/api/tasks/{t}", {"x": ""}, "x"),
        ("/api/machines/{m}", {"x": ""}, "x"),
        ("/api/sessions", {"project_id": "a\x00b"}, "project_id"),
        ("/api/tasks", {"session_id": "\x00"}, "session_id"),
    ],
)
def test_a_wrong_parameter_is_named(
    world: World, path: str, query: dict[str, str], field: str
) -> None:
    """Given a query parameter that is wrong or unknown, then 400 names it."""
    invalid(world.api.get(world.path(path), params=query), field)


def test_a_parameter_given_twice_is_refused(world: World) -> None:
    """Which of the two was meant nobody can tell."""
    invalid(world.api.get("/api/sessions?limit=5&limit=6"), "limit")


def test_a_command_takes_no_parameters(world: World) -> None:
    """What belongs in the body is not read from the query."""
    body = {"project_id": "p", "machine_id": "m"}
    invalid(world.api.post("/api/sessions?replace=true", json=body), "replace")
    invalid(world.api.post(world.path("/api/sessions/{s}/heartbeat?x=1")), "x")
    invalid(world.api.post("/api/sessions/cleanup?days=3"), "days")


def test_the_highest_limits_are_allowed(world: World) -> None:
    """100 for sessions, 200 for tasks and machines; 50 unless told."""
    for path, most in (("sessions", 100), ("sessions/active", 100), ("tasks", 200)):
        assert ok(world.api.get(f"/api/{path}", params={"limit": most}))["limit"] == most
        assert ok(world.api.get(f"/api/{path}"))["limit"] == 50
    assert ok(world.api.get("/api/machines?limit=200"))["limit"] == 200


# What JSON can say and the store cannot keep


def raw(metadata: bytes) -> bytes:
    """The body of a session with this metadata."""
    return b'{"project_id":"p","machine_id":"m","metadata":' + metadata + b"}"


def nested(depth: int) -> bytes:
    """A value of this depth that, in metadata, is two less deep than the whole body."""
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(rb'{"a": "x\u0000y"}', id="NUL in a value"),
        pytest.param(rb'{"a\u0000": 1}', id="NUL in a key"),
        pytest.param(rb'{"a": {"b": [{"c": ["\u0000"]}]}}', id="NUL deep inside"),
        pytest.param(rb'{"a": {"\u0000": null}}', id="NUL as a key"),
        pytest.param(rb'{"a": "\ud800"}', id="lone high surrogate"),
        pytest.param(rb'{"a": "\udc00x"}', id="lone low surrogate"),
        pytest.param(rb'{"\ud800": 1}', id="lone surrogate in a key"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"a": "\x01"}', id="raw control character"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": Infinity}', id="Infinity"),
        pytest.param(b'{"a": -Infinity}', id="-Infinity"),
        pytest.param(b'{"a": 1e400}', id="1e400"),
        pytest.param(b'{"a": [-1e999]}', id="-1e999"),
        pytest.param(b'{"a": 9007199254740994}', id="beyond 2^53"),
        pytest.param(b'{"a": [{"b": -9007199254740994}]}', id="below -2^53"),
        pytest.param(b'{"a": 18446744073709551616}', id="beyond 2^64"),
        pytest.param(b'{"a": ' + b"9" * 400 + b"}", id="a number of 400 digits"),
        pytest.param(nested(64), id="depth 65"),
        pytest.param(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", id="depth 65, empty at the end"),
        pytest.param(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", id="depth 502"),
        pytest.param(b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}", id="depth 60,002"),
    ],
)
def test_what_cannot_be_stored_faithfully_is_refused(world: World, metadata: bytes) -> None:
    """Given metadata that would be lost or changed in the store, then 400 with its field."""
    for verb, path, body in (
        ("POST", "/api/sessions", raw(metadata)),
        ("PATCH", "/api/sessions/{s}", b'{"metadata":' + metadata + b"}"),
        ("POST", "/api/sessions/{s}/heartbeat", b'{"metadata":' + metadata + b"}"),
        ("PATCH", "/api/tasks/{t}", b'{"metadata":' + metadata + b"}"),
        ("PATCH", "/api/machines/{m}", b'{"metadata":' + metadata + b"}"),
    ):
        reply = refused(
            world.api.request(verb, world.path(path), content=body), 400, "validation_error"
        )
        assert reply["errors"], reply
        assert all(error["field"] and error["message"] for error in reply["errors"])


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"text"',
        b"7",
        b"null",
        b"true",
        b"{",
        b"{]",
        b"{} {}",
        b"project_id=p&machine_id=m",
        b'{"project_id": "p",}',
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"// comment\n{}",
    ],
)
def test_a_body_that_is_not_an_object_is_refused(world: World, body: bytes) -> None:
    """Given a body that is no JSON object, then 400 says so of the body, for every command."""
    for verb, path in (
        ("POST", "/api/sessions"),
        ("POST", "/api/sessions/{s}/heartbeat"),
        ("DELETE", "/api/sessions/{s}"),
        ("POST", "/api/sessions/detect-failures"),
        ("POST", "/api/machines"),
    ):
        invalid(world.api.request(verb, world.path(path), content=body), "body")


def chunks(size: int) -> Iterator[bytes]:
    """A body in chunks, whose size the headers do not tell."""
    whole = padded(size)
    for start in range(0, len(whole), 50_000):
        yield whole[start : start + 50_000]


def padded(size: int) -> bytes:
    """A good body for a session's PATCH of exactly this many bytes, all of them white space."""
    return b"{" + b" " * (size - 2) + b"}"


@pytest.mark.parametrize("how", ["content-length", "chunked"])
def test_a_body_over_256_kib_is_refused(world: World, how: str) -> None:
    """Given a body of one byte too many, then 413, whether its length is announced or not."""

    def body(size: int) -> bytes | Iterator[bytes]:
        return padded(size) if how == "content-length" else chunks(size)

    path = world.path("/api/sessions/{s}")
    for size in (LIMIT + 1, LIMIT * 2):
        refused(world.api.patch(path, content=body(size)), 413, "payload_too_large")
    assert ok(world.api.patch(path, content=body(LIMIT))) == world.api.get_session(
        world.session["session_id"]
    )


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions/{x}",
        "/api/sessions/{x}/health",
        "/api/sessions/{x}/recovery-state",
        "/api/tasks/{x}",
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        "invalid-uuid",
        "0b2ab3c8-5d1f-4f7e-9d2c-8c1b0e8f6a77",
        "0B2AB3C8-5D1F-4F7E-9D2C-8C1B0E8F6A77",
        "0b2ab3c85d1f4f7e9d2c8c1b0e8f6a77",
        "%00",
        "%F0%9F%92%A9",
        "%FF%FE",
        "x" * 3000,
        "'; DROP TABLE event_store; --",
        "..%2f..%2fetc",
    ],
)
def test_an_id_in_a_path_that_names_nothing_is_not_found(
    world: World, path: str, given: str
) -> None:
    """Given an unknown or malformed id in the path, then 404 (spec 15, 8)."""
    reply = world.api.get(path.replace("{x}", given))
    assert reply.status_code == 404, reply.text
    assert reply.json()["code"] in {"session_not_found", "task_not_found", "no_such_path"}


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("PATCH", "/api/sessions/{x}", {}),
        ("DELETE", "/api/sessions/{x}", None),
        ("POST", "/api/sessions/{x}/heartbeat", None),
        ("POST", "/api/sessions/{x}/mark-failed", {"error_message": "x"}),
        ("POST", "/api/sessions/{x}/mark-stalled", None),
        ("POST", "/api/sessions/{x}/archive", None),
        ("POST", "/api/sessions/{x}/prepare-recovery", None),
        ("POST", "/api/sessions/{x}/recover", {"new_machine_id": "m"}),
        ("PATCH", "/api/tasks/{x}", {"status": "completed"}),
        ("DELETE", "/api/tasks/{x}", None),
    ],
)
def test_a_command_for_what_is_not_there_is_not_found(
    world: World, verb: str, path: str, body: Json | None
) -> None:
    """Given an unknown or malformed id, then 404, and no stream comes into being."""
    code = "session_not_found" if "sessions" in path else "task_not_found"
    for given in ("invalid-uuid", "0b2ab3c8-5d1f-4f7e-9d2c-8c1b0e8f6a77"):
        refused(world.api.request(verb, path.replace("{x}", given), json=body), 404, code)


def test_a_machine_s_name_in_a_path_may_be_anything(world: World) -> None:
    """Given a machine id with characters that no machine has, then 404, never 500."""
    for given in ("%00", "a%00b", "%FF", "%F0%9F%92%A9", "x" * 5000, "%0A", "a/b/c", ""):
        reply = world.api.get(f"/api/machines/{given}")
        assert reply.status_code == 404, (given, reply.text)


def test_good_numbers_and_texts_are_kept_as_they_are(world: World, api: Api) -> None:
    """Given values at the edges of what is allowed, then they come back the same."""
    metadata = {
        "integers": [2**53, -(2**53), 0, -1],
        "floats": [0.1, -2.5e-7, 1e15 + 0.5],
        "texts": ["", " ", "\u2028", "💥", '"\\', "\u0001", "é", "e\u0301", "\x7f"],
        "keys": {"": 1, " ": 2, "a.b": 3, "$where": 4, "__proto__": 5, "💥": 6},
        "nothing": [None, {"inside": None}],
        "empty": [{}, [], [[]]],
        "truth": [True, False],
    }
    session_id = api.session(metadata=metadata)["session_id"]
    assert api.get_session(session_id)["metadata"] == metadata
    deepest = orjson.loads(nested(62))
    assert api.beat(session_id, metadata={"deep": deepest})["metadata"]["deep"] == deepest
    assert api.get_session(session_id)["metadata"]["deep"] == deepest


def test_ids_are_kept_as_they_are(api: Api) -> None:
    """Given ids with odd characters, then they come back the same and can be filtered by."""
    for odd in ("a/b", "c d", "%2F", "💥", "O'Brien", "x" * 200, '"', "\\", "ü", "padded  "):
        session = api.session(project_id=odd, machine_id=f"{odd[:100]}{name('m')}")
        listed = ok(api.get("/api/sessions", params={"project_id": odd}))["sessions"]
        assert listed == [session]
        assert session["project_id"] == odd.strip()  # spec 17: outer blanks removed
