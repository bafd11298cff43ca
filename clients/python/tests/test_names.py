"""Projects, machines and items are called what people call them, from here too (field case 18)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.supervised import HOLDFAST, WORKER, Desk, desk

from domain import identity
from holdfast import Client, InvalidInput, names
from holdfast.git import WorkingCopy
from holdfast.managed import ManagedInstance, ManagedSession
from tests.acceptance.serving import Api, eventually
from tests.support.commands import Cli
from tests.support.proxy import HttpWire

NAMES = ["проект", "日本語 app", "🚀", "👩\u200d💻", "می\u200cخواهم", "C++", "cafe\u0301", "..!"]
ODD = [
    *NAMES,
    "plain",
    "  outer ",
    "a\nb",
    "a\u200db",
    "a\u200bb",
    "\u202eb",
    "a\ufe0f",
    "☁\ufe0f",
    "\u3000",
    "x" * 201,
]


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


@pytest.fixture
def far(api: Api, wire: HttpWire, tmp_path: Path) -> Iterator[Desk]:
    """A desk at the end of a wire."""
    with desk(api, tmp_path / "work", wire.url) as it:
        yield it


@pytest.mark.parametrize("text", ODD)
def test_the_client_and_the_service_have_one_form_of_a_name(text: str) -> None:
    form = names.normal(text)

    assert form == identity.normal(text)
    assert names.unseen(form) == identity.unseen(form)
    made = names.fit(text)
    assert made == names.given(made, "it") == names.fit(made)
    if text in NAMES:
        assert made == form


@pytest.mark.parametrize(
    ("folder", "name"),
    [("a\nb", "ab"), ("a\u200bb ", "ab"), ("caf\udce9", "caf\ufffd"), ("\u202e", "unnamed")],
)
def test_a_folder_s_name_is_made_fit(folder: str, name: str) -> None:
    assert names.fit(folder) == name


def test_long_names_of_folders_that_differ_stay_two() -> None:
    one, other = names.fit("x" * 250 + "1"), names.fit("x" * 250 + "2")

    assert one != other
    assert len(one) == len(other) == 200


@pytest.mark.parametrize("project", NAMES[::2])
def test_a_run_in_a_folder_of_any_name_is_the_project_of_that_name(
    here: Desk, project: str
) -> None:
    here.folder = here.folder / project
    here.folder.mkdir()
    assert WorkingCopy(here.folder).name() == names.normal(project)
    run = here.carry_on(project)
    run.up()

    session, instance = run.session(), run.instance()
    assert session["project_id"] == instance["project_name"] == names.normal(project)
    run.say("0")
    assert run.end() == 0, run.told


@pytest.mark.parametrize("project", ["проект", "🚀 cafe\u0301"])
def test_a_run_without_the_service_is_delivered_whatever_its_project_is_called(
    far: Desk, wire: HttpWire, connect: Connect, project: str
) -> None:
    wire.down()
    run = far.run("--machine", "сервер", "--interval", "0.1", project=project)
    run.up()
    run.say("0")
    assert run.end() == 0, run.told
    wire.up()
    client = connect(wire.url, lenient=True)
    eventually("the delivery", lambda: not client.spool.has_any())

    assert client.spool.refused() == []
    assert run.session()["status"] == "completed"
    assert run.session()["machine_id"] == "сервер"
    assert run.instance()["status"] == "closed"


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--project", " "),
        ("--project", "x" * 201),
        ("--project", "a\u200bb"),
        ("--machine", "a\nb"),
        ("--claim", "a\u202eb"),
        ("--machine", ".."),
        ("--claim", "."),
    ],
)
def test_a_name_that_the_service_would_refuse_starts_nothing_even_without_it(
    far: Desk, wire: HttpWire, option: str, name: str
) -> None:
    wire.down()
    run = far.carry_on("", option, name, command=(sys.executable, "-c", WORKER))

    assert run.end() == 2, run.told
    assert option in run.told
    assert run.printed == ""


WRONG = [" ", "\u3000", "a\nb", "a\u200bb", "x" * 201]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("is_up", [True, False])
def test_the_sdk_refuses_a_name_at_once_that_the_service_would_refuse(
    connect: Connect, wire: HttpWire, name: str, is_up: bool
) -> None:
    if not is_up:
        wire.down()
    client = connect(wire.url, retries=0)
    for start, field in _beginnings(client, name):
        with pytest.raises(InvalidInput, match=field) as refused, start():
            pytest.fail("it began")
        assert [error["field"] for error in refused.value.errors] == [field]


@pytest.mark.parametrize("name", WRONG)
def test_a_lenient_client_goes_on_and_keeps_nothing_that_would_be_refused(
    connect: Connect, wire: HttpWire, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    wire.down()
    for at in range(3):
        client = connect(wire.url, lenient=True)
        start, field = _beginnings(client, name)[at]
        with start() as begun:
            assert begun.id is None
        assert f"{field} " in caplog.text
        assert not client.spool.has_any()


@pytest.mark.parametrize("machine", [".", "..", " .. "])
def test_the_sdk_names_no_machine_as_no_url_can(
    connect: Connect, wire: HttpWire, machine: str
) -> None:
    wire.down()
    client = connect(wire.url, retries=0)

    with pytest.raises(InvalidInput, match="machine_id"), client.session("..", machine):
        pytest.fail("it began")


def _beginnings(
    client: Client, name: str
) -> list[tuple[Callable[[], ManagedSession | ManagedInstance], str]]:
    return [
        (lambda: client.session(name, "laptop"), "project_id"),
        (lambda: client.session("odin", name), "machine_id"),
        (lambda: client.instance(name), "project"),
    ]


@pytest.mark.parametrize("project", [*NAMES, "a\udcff", "x" * 200])
def test_the_sdk_s_work_without_the_service_is_delivered_whatever_its_project_is_called(
    connect: Connect, wire: HttpWire, client: Client, project: str
) -> None:
    wire.down()
    away = connect(wire.url, lenient=True)
    with away.instance(project) as agent, agent.session("сервер"):
        pass
    wire.up()
    eventually("the delivery", lambda: not away.spool.has_any())

    assert away.spool.refused() == []
    (session,) = client.sessions.list()["sessions"]
    (instance,) = client.instances.list()["instances"]
    assert session["status"] == "completed"
    assert session["project_id"] == instance["project_name"]
    assert session["instance_id"] == instance["instance_id"]


def test_a_place_is_taken_with_what_is_held_there_however_its_project_is_written(
    here: Desk, client: Client
) -> None:
    old = client.sessions.create("Odin X", "laptop")["session_id"]
    client.claims.take("SD-1", session_id=old)

    run = here.run(
        "--machine", "laptop", "--replace", "--claim", "SD-1", project="odin-x", command=("true",)
    )

    assert run.end() == 0, run.told
    assert client.sessions.get(old)["status"] == "failed"


@pytest.mark.parametrize("project", ["проект", "👩\u200d💻"])
def test_the_sdk_and_the_commands_find_what_they_made(
    client: Client, cli: Cli, project: str
) -> None:
    with client.instance(project) as agent, agent.session("сервер") as session:
        item = f"{project}/задача 1?"
        with session.task("задача"):
            client.work_items.put(item, track=project)
            client.claims.take(item, session_id=session.id)
        found = cli.json("instances", "--project", project)["instances"]
        assert [one["instance_id"] for one in found] == [agent.id]
        assert project in cli.ok("instances", COLUMNS="200")
        assert client.sessions.list(project_id=project)["total_count"] == 1
        assert client.tasks.list(project_id=project)["total_count"] == 1
        assert client.machines.get("сервер")["active_sessions"] == [session.id]
        assert cli.json("events", item)["total_count"] >= 2
        assert session.id is not None
        assert cli.json("complete", item, "--session", session.id)["status"] == "completed"


def test_what_is_not_text_is_told(client: Client, cli: Cli) -> None:
    with pytest.raises(InvalidInput):
        client.work_items.get("a\udcff")
    with pytest.raises(InvalidInput):
        client.instances.list(project="a\udcff")
    ended = subprocess.run(
        [HOLDFAST, "next", "--track", b"a\xff"],
        env=cli._whole({}),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_branch_in_another_script_is_told(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "проект"
    subprocess.run(["git", "init", "-q", "-b", "ветка/ёж", str(folder)], check=True)
    state = WorkingCopy(folder).state()
    assert state is not None
    with client.instance("проект") as agent:
        assert agent.id is not None
        client.instances.beat(agent.id, git=state)

        assert ok_branch(client, agent.id) == "ветка/ёж"


def ok_branch(client: Client, instance_id: str) -> str:
    git = client.instances.get(instance_id)["git"]
    assert git is not None
    return str(git["branch"])
