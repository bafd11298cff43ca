"""What waits for another address or key is seen, and can be sent here if a person says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client
from holdfast.address import normal
from holdfast.request import Request, Write, new_key
from holdfast.spool import Spool
from tests.acceptance.serving import Api, ok
from tests.support.commands import Cli

GONE = "http://holdfast.invalid:8080"


def machine(name: str) -> Write:
    body = {"hostname": name, "docker_slots": []}
    return Write(Request("POST", "/api/machines", body, idempotency_key=new_key()))


def machines(api: Api) -> set[str]:
    return {one["hostname"] for one in ok(api.get("/api/machines"))["machines"]}


@pytest.mark.parametrize(
    "others",
    [
        ["http://127.0.0.1:8080", "HTTP://LocalHost:8080/", "http://[::1]:8080//"],
        ["http://127.0.0.1", "http://localhost:80", "http://localhost.:80/"],
        ["https://Example.TEST/", "https://example.test:443", "https://user:x@example.test"],
        ["http://example.test/holdfast", "http://example.test:80/holdfast/"],
        ["http://[2001:DB8::1]:1", "http://[2001:db8::1]:1/"],
    ],
)
def test_addresses_of_one_service_are_one(others: list[str]) -> None:
    assert len({normal(one) for one in others}) == 1


def test_addresses_of_different_services_stay_different() -> None:
    different = [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
        "https://127.0.0.1:8080",
        "http://127.0.0.2:8080",
        "http://example.test:8080",
        "http://example.test:8080/other",
        "http://localhost.example.test:8080",
    ]

    assert len({normal(one) for one in different}) == len(different)


def test_what_was_kept_under_another_name_of_this_machine_is_sent(
    client: Client, api: Api, cli: Cli
) -> None:
    port = client.settings.url.rpartition(":")[2]
    Spool(client.settings.spool_dir, f"http://LOCALHOST:{port}/", api.key).keep(machine("tower"))

    assert "1 write" in cli("status").err
    assert machines(api) == {"tower"}


def test_every_command_says_what_waits_for_another_address(
    client: Client, cli: Cli, api: Api
) -> None:
    other = Spool(client.settings.spool_dir, GONE, api.key)
    for number in range(3):
        other.keep(machine(f"m{number}"))
    other.keep(Write(machine("beat").request, replaces="beat"))
    for command in (["status"], ["next"], ["instances"], ["events", "nobody"]):
        told = cli(*command).err.splitlines()
        assert sum(f"3 writes wait for {GONE} " in line for line in told) == 1, command

    found = cli("doctor")
    assert found.code == 1
    assert f"3 written for {GONE}" in found.out
    assert f"holdfast doctor --adopt {GONE}" in found.out
    assert machines(api) == set()


def test_every_command_says_what_waits_for_another_key(client: Client, cli: Cli) -> None:
    other = Spool(client.settings.spool_dir, client.settings.url, "another")
    other.keep(machine("tower"))

    assert f"1 write waits for the API key {other.key_id} " in cli("status").err


def test_it_is_sent_here_once_a_person_says_so(client: Client, cli: Cli, api: Api) -> None:
    other = Spool(client.settings.spool_dir, GONE, api.key)
    other.keep(machine("one"))
    other.keep(machine("two"))
    told = cli("doctor", "--adopt", f"{GONE}/")

    assert f"2 that waited for {GONE}/ are now sent here" in told.out
    assert machines(api) == {"one", "two"}
    assert other.stats().kept == 0
    assert cli("status").err == ""
    assert cli("doctor", "--adopt", GONE).code == 1


def test_what_was_written_under_another_key_there_waits_for_that_key_here(
    client: Client, cli: Cli, api: Api
) -> None:
    other = Spool(client.settings.spool_dir, GONE, "another")
    other.keep(machine("one"))
    cli("doctor", "--adopt", GONE)
    assert machines(api) == set()
    cli("doctor", "--adopt", other.key_id)

    assert machines(api) == {"one"}


def test_what_belongs_together_stays_together(connect: Connect, cli: Cli, api: Api) -> None:
    with (
        Client(GONE, api.key, lenient=True, retries=0) as lost,
        lost.session("odin", "laptop") as session,
        session.task("write the parser"),
    ):
        pass
    assert cli("doctor", "--adopt", GONE).out.count("that waited for") == 1

    [session] = ok(api.get("/api/sessions"))["sessions"]
    [task] = ok(api.get("/api/tasks"))["tasks"]
    assert (session["status"], task["status"]) == ("completed", "completed")


def test_files_of_before_and_damaged_ones_are_no_obstacle(
    client: Client, cli: Cli, api: Api
) -> None:
    """Before, a file did not say which address it is for."""
    other = Spool(client.settings.spool_dir, GONE, api.key)
    other.keep(machine("one"))
    with closing(sqlite3.connect(other.path)) as db, db:
        db.execute("DROP TABLE about")
        db.execute("DROP TABLE lost")
    Path(other.path.parent, "damaged.db").write_bytes(b"no database")
    Path(other.path.parent, "a-folder.db").mkdir()
    told = cli("status").err
    assert f"1 write waits for {other.path.stem} " in told
    cli("doctor", "--adopt", other.path.stem)

    assert machines(api) == {"one"}
