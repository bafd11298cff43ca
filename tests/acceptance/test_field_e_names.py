"""Projects, machines and hosts are called what people call them (field cases 18)."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest

from tests.acceptance.serving import Api, Json, invalid, name, ok, refused

# In other scripts, from right to left, of marks and signs, long, with blanks and slashes.
NAMES = [
    "проект",
    "日本語",
    "🚀",
    "👩\u200d💻 app",
    "مشروع",
    "می\u200cخواهم",
    "עברית",
    "हिन्दी",
    "café",
    "ÄÖ",
    "C++",
    "!!!",
    "日本語 app",
    "a/b?c#d%2Fe+f g",
    "..",
    "x" * 200,
    "🚀" * 200,
]


def _instance(api: Api, project: str) -> Json:
    body = {"project": project, "instance_type": "PS"}
    return ok(api.post("/api/instances", json=body), 201)


def _sessions(api: Api, project: str) -> list[str]:
    found = ok(api.get("/api/sessions", params={"project_id": project}))["sessions"]
    return [session["session_id"] for session in found]


def _instances(api: Api, project: str, path: str = "/api/instances") -> list[str]:
    found = ok(api.get(path, params={"project": project}))["instances"]
    return [instance["instance_id"] for instance in found]


@pytest.mark.parametrize("project", NAMES)
def test_a_project_of_any_name_has_instances_sessions_and_tasks(api: Api, project: str) -> None:
    form = unicodedata.normalize("NFC", project)
    instance = _instance(api, project)
    session = api.session(project_id=project)
    task = api.task(session)
    slug = instance["project"]

    assert instance["instance_id"].startswith(f"{slug}-PS-")
    assert len(slug) <= 63
    assert (instance["project_name"], session["project_id"]) == (form, form)
    assert task["project_id"] == form
    for given in (project, slug):
        assert _instances(api, given) == [instance["instance_id"]]
        assert _instances(api, given, "/api/v1/registry/discover") == [instance["instance_id"]]
        assert _sessions(api, given) == [session["session_id"]]
        tasks = ok(api.get("/api/tasks", params={"project_id": given}))["tasks"]
        assert [one["task_id"] for one in tasks] == [task["task_id"]]


@pytest.mark.parametrize("project", ["проект", "🚀", "日本語"])
def test_of_a_name_without_a_letter_that_ids_have_there_is_a_hash(api: Api, project: str) -> None:
    digest = hashlib.sha256(project.encode()).hexdigest()[:8]

    assert _instance(api, project)["project"] == f"p-{digest}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("проект", "  проект  "),
        ("日本\u3000語", "日本 語"),
        ("Odin X", "odin-x"),
        ("Проект-й", "Проект-и\u0306"),
    ],
)
def test_two_ways_to_write_it_are_one_project(api: Api, one: str, other: str) -> None:
    """It has one place on a machine, one list, and takes tasks under either name."""
    first, second = _instance(api, one), _instance(api, other)
    session = api.session(project_id=one, machine_id="here")

    assert first["project"] == second["project"]
    assert _sessions(api, other) == _sessions(api, one) == [session["session_id"]]
    body = {"project_id": other, "machine_id": "here"}
    refused(api.post("/api/sessions", json=body), 409, "session_exists")
    api.task({**session, "project_id": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [("проект-a", "другой-a"), ("C++", "C#"), ("x" * 70 + "1", "x" * 70 + "2"), ("🚀", "🚒")],
)
def test_two_projects_are_never_mixed_up(api: Api, one: str, other: str) -> None:
    first = api.session(project_id=one, machine_id="here")
    second = api.session(project_id=other, machine_id="here")

    assert _instance(api, one)["project"] != _instance(api, other)["project"]
    assert _sessions(api, one) == [first["session_id"]]
    assert _sessions(api, other) == [second["session_id"]]
    body = {"session_id": first["session_id"], "project_id": other, "task_name": "t"}
    invalid(api.post("/api/tasks", json=body), "project_id")


@pytest.mark.parametrize("project", ["", "   ", "\u3000\u00a0", "a\u200bb", "x" * 201, "a\nb"])
def test_only_a_name_that_can_be_seen_is_one(api: Api, project: str) -> None:
    invalid(api.post("/api/instances", json={"project": project, "instance_type": "PS"}), "project")
    body = {"project_id": project, "machine_id": "m"}
    invalid(api.post("/api/sessions", json=body), "project_id")


@pytest.mark.parametrize("machine", ["сервер-1", "ホスト", "🖥\ufe0f", "büro/2.stock"])
def test_a_host_of_any_name_is_a_machine(api: Api, machine: str) -> None:
    session = api.session(machine_id=machine, hostname=machine)
    api.fail(session["session_id"])
    successor = ok(api.recover(session["session_id"], unicodedata.normalize("NFD", machine)), 201)

    assert successor["machine_id"] == session["machine_id"]
    path = f"/api/machines/{_quoted(machine)}"
    assert ok(api.get(path))["active_sessions"] == [successor["session_id"]]
    ok(api.post(f"{path}/heartbeat", json={}))
    listed = ok(api.get("/api/sessions", params={"machine_id": machine}))["sessions"]
    assert len(listed) == 2


@pytest.mark.parametrize("branch", ["ветка/ёж", "機能-1", "feature/🚀"])
def test_a_branch_is_told_as_git_calls_it(api: Api, branch: str) -> None:
    instance = _instance(api, name("project"))
    path = f"/api/instances/{instance['instance_id']}"

    ok(api.post(f"{path}/heartbeat", json={"git": {"branch": branch}}))

    assert ok(api.get(path))["instance"]["git"]["branch"] == branch


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
