"""Versions of the service at work on one database at once, as during every deployment (spec 15).

Whatever one has acknowledged the other has, too; nothing is set aside, and no row is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import DEFINITIONS, schema
from tests.acceptance import versions
from tests.acceptance.serving import Api, Json, Server, cloned, eventually, name, ok
from tests.support.postgres import as_owner, ask, ask_one


@pytest.fixture(scope="module", params=["a former version", "a next version"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages of another version are."""
    make = versions.former if request.param == "a former version" else versions.following
    return make(tmp_path_factory.mktemp("version"))


@contextmanager
def empty(cluster: EmbeddedPostgres) -> Iterator[str]:
    """A database in which nobody has served yet."""
    database = name("empty")
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{database}"'.encode())
        try:
            yield cluster.url_of(database)
        finally:
            admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)'.encode())


def work(writer: Api, reader: Api, number: int) -> Json:
    """Something of everything through one process; what the other one says of it at once."""
    project = name("project")
    session = writer.session(project_id=project)
    path = f"/api/sessions/{session['session_id']}"
    for _ in range(3):
        ok(writer.post(f"{path}/heartbeat", json={"metadata": {"n": number}}))
    ok(writer.post(f"{path}/heartbeat"))
    task = {"session_id": session["session_id"], "project_id": project, "task_name": "t"}
    ok(writer.post("/api/tasks", json=task), 201)
    item = name("item")
    claim = {"item_id": item, "session_id": session["session_id"]}
    ok(writer.post("/api/claims", json=claim), 201)
    agent = ok(writer.post("/api/instances", json={"project": project, "instance_type": "PS"}), 201)
    ok(writer.post(f"/api/instances/{agent['instance_id']}/heartbeat"))
    seen = ok(reader.get(path))
    assert (seen["status"], seen["metadata"]["n"]) == ("active", number)
    assert ok(reader.get(f"/api/work-items/{item}"))["holder"] == session["session_id"]
    assert (
        ok(reader.get(f"/api/instances/{agent['instance_id']}"))["instance"]["status"] == "active"
    )
    tasks = ok(reader.get(f"/api/tasks?session_id={session['session_id']}"))["tasks"]
    assert [each["task_name"] for each in tasks] == ["t"]
    return seen


def set_aside(url: str) -> int:
    """How many events any version could not fold."""
    count: int = ask_one(url, "SELECT count(*) FROM projections.dead_letters")
    if ask_one(url, "SELECT to_regclass('read_models.projector_failures') IS NOT NULL"):
        count += ask_one(url, "SELECT count(*) FROM read_models.projector_failures")
    return count


def live_sessions(url: str) -> list[tuple[object, ...]]:
    """The rows that this version keeps of sessions."""
    return ask(url, "SELECT to_jsonb(s) FROM sessions AS s ORDER BY namespace, session_id")


@pytest.mark.parametrize("first", ["this", "other"])
def test_two_versions_serve_side_by_side(
    cluster: EmbeddedPostgres, tmp_path: Path, other: Path, first: str
) -> None:
    """Given one that serves, when another one starts beside it, then each knows all of both."""
    begins, joins = (versions.ROOT, other) if first == "this" else (other, versions.ROOT)
    with empty(cluster) as url, Server(url, tmp_path, begins) as one:
        with one.default() as before:
            for number in range(3):
                work(before, before, number)
            with Server(url, tmp_path, joins) as two, two.default() as after:
                for number in range(3):
                    work(before, after, number)
                    work(after, before, number)
                assert (
                    ok(before.get("/api/sessions?limit=1"))["total_count"]
                    == ok(after.get("/api/sessions?limit=1"))["total_count"]
                    == 9
                )
            # The one that was there first goes on, and so does it after a restart.
            work(before, before, 9)
        with Server(url, tmp_path, begins) as again, again.default() as api:
            work(api, api, 10)
        assert set_aside(url) == 0


def test_a_deployment_and_its_reversal(
    cluster: EmbeddedPostgres, tmp_path: Path, other: Path
) -> None:
    """Given a version that is replaced, and put back, then every one begins with what is there."""
    made = []
    with empty(cluster) as url:
        for number, version in enumerate((other, versions.ROOT, other, versions.ROOT)):
            with Server(url, tmp_path, version) as server, server.default() as api:
                made.append(work(api, api, number)["session_id"])
                for session_id in made:
                    ok(api.get(f"/api/sessions/{session_id}"))
        assert set_aside(url) == 0
        live = live_sessions(url)
        schema.rebuild(url)
        assert live_sessions(url) == live


def test_what_no_version_has_used_for_a_day_is_dropped(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """Given a definition and a former layout that nobody keeps up to date, then they go."""
    with cloned(cluster, template) as url:
        with as_owner(url) as owner:
            owner.execute(
                "CREATE SCHEMA projection_sessions_left;"
                " INSERT INTO projections.definitions (place, read_model, used_at)"
                " VALUES ('projection_sessions_left', 'sessions', now() - interval '25 hours'),"
                "        ('read_models', 'all', now() - interval '25 hours');"
                " CREATE SCHEMA read_models;"
                " CREATE TABLE read_models.projector_position"
                " (namespace text PRIMARY KEY, position bigint)"
            )
        with Server(url, tmp_path) as server, server.default() as api:
            work(api, api, 1)
        with as_owner(url) as owner:
            # Until then it might have been that nobody wrote.
            owner.execute("UPDATE projections.definitions SET used_at = now() - interval '25 h'")
        schema.install(url)
        schemas = {s for (s,) in ask(url, "SELECT nspname::text FROM pg_namespace")}
        assert not schemas & {"projection_sessions_left", "read_models"}
        assert {each.place for each in DEFINITIONS} < schemas


def test_a_process_says_what_it_uses(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """Given definitions not seen for long, when a process has them, then they are seen."""
    unseen = "SELECT count(*) FROM projections.definitions WHERE used_at < now() - interval '1 h'"
    with cloned(cluster, template) as url:
        with as_owner(url) as owner:
            owner.execute("UPDATE projections.definitions SET used_at = now() - interval '20 h'")
        with Server(url, tmp_path):
            eventually("being seen", lambda: ask_one(url, unseen) == 0)
