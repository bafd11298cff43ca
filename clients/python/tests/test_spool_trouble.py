"""What is neither in memory nor on disk is lost, and said to be; the rest goes on."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client
from holdfast.request import Request, Write, new_key
from holdfast.spool import Spool
from tests.acceptance.serving import Api, Json, ok
from tests.support.commands import Cli
from tests.support.proxy import HttpWire
from tests.support.waiting import eventually


@pytest.fixture
def lenient(connect: Connect, wire: HttpWire) -> Client:
    """A client that never fails the work, at an address that can go away."""
    return connect(wire.url, lenient=True, retries=0)


def unusable(spool: Spool) -> Path:
    """Something stands where its folder should be."""
    folder = spool.path.parent
    folder.parent.mkdir(exist_ok=True)
    folder.touch()
    return folder


def sessions(api: Api) -> list[Json]:
    found: list[Json] = ok(api.get("/api/sessions"))["sessions"]
    return found


def projects(api: Api) -> set[str]:
    return {session["project_id"] for session in sessions(api)}


def machine(name: str) -> Write:
    body = {"hostname": name, "docker_slots": []}
    return Write(Request("POST", "/api/machines", body, idempotency_key=new_key()))


def test_what_belongs_to_a_refused_write_does_not_hold_up_the_rest(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    unusable(lenient.spool)
    wire.down()
    refused = lenient.sessions.create("odin", "laptop", stall_threshold_ms=1)["session_id"]
    task = lenient.tasks.create(refused, "odin", "in it")["task_id"]
    lenient.tasks.start(task)
    lenient.sessions.complete(refused)
    good = lenient.sessions.create("thor", "laptop")["session_id"]
    lenient.tasks.create(good, "thor", "in the other")
    wire.up()
    eventually(lambda: not lenient.spool.has_any())

    assert projects(api) == {"thor"}
    assert [task["task_name"] for task in ok(api.get("/api/tasks"))["tasks"]] == ["in the other"]


def test_what_does_not_fit_into_memory_is_lost_and_told_and_the_rest_goes_on(
    lenient: Client,
    wire: HttpWire,
    api: Api,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("holdfast.spool.MAX_IN_MEMORY", 10)
    folder = unusable(lenient.spool)
    wire.down()
    with caplog.at_level(logging.WARNING):
        first = lenient.sessions.create("odin", "laptop")["session_id"]
        for number in range(12):
            lenient.tasks.create(first, "odin", f"task {number}")
        lenient.sessions.create("thor", "laptop")
    folder.unlink()
    wire.up()
    eventually(lambda: not lenient.spool.has_any())

    assert "thor" in projects(api)
    assert caplog.text.count("the oldest are lost") == 1
    # What belongs to the first one is given up as soon as that is looked at.
    lost = lenient.spool.lost().writes
    assert 1 <= lost <= 4
    told = cli("doctor", HOLDFAST_URL=wire.url)
    assert f"{lost} write{'' if lost == 1 else 's'} w" in told.out
    assert "lost in the last month" in " ".join(told.out.split())
    assert told.code == 1


def test_a_process_that_ends_says_how_much_it_lost(
    connect: Connect, wire: HttpWire, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(wire.url, lenient=True, retries=0)
    unusable(client.spool)
    wire.down()
    for number in range(3):
        client.sessions.create(f"p{number}", "laptop")
    with caplog.at_level(logging.ERROR):
        client.close()

    assert "3 writes are lost" in caplog.text


def test_too_much_for_memory_is_counted_in_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.spool.MAX_MEMORY_BYTES", 5_000)
    spool = Spool(tmp_path / "spool", "http://127.0.0.1:1", "key")
    unusable(spool)
    for _ in range(10):
        spool.keep(machine("x" * 1_000))

    assert 3 <= spool.stats().kept <= 4
    assert spool.lost().writes == 10 - spool.stats().kept


def test_a_write_that_no_service_would_take_is_refused_at_once(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    """It would take the room of all others."""
    wire.down()
    large = lenient.sessions.create("odin", "laptop", metadata={"a": "x" * 2_000_000})
    lenient.sessions.create("thor", "laptop")
    wire.up()
    eventually(lambda: not lenient.spool.has_any())

    assert large["refused"] == "invalid_input"  # type: ignore[typeddict-item]
    assert projects(api) == {"thor"}


def test_a_disk_that_is_full_in_the_middle_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = Spool(tmp_path / "spool", "http://127.0.0.1:1", "key", max_bytes=100_000)
    writes = [machine("x" * 500 + str(number)) for number in range(400)]
    with caplog.at_level(logging.WARNING):
        for write in writes:
            small.keep(write)
    sent = []
    while (entry := small.first()) is not None:
        sent.append(entry.request)
        small.done(entry)

    assert sent == [write.request for write in writes]
    assert caplog.text.count("cannot be used") == 1


@contextmanager
def held(path: Path, how: str) -> Iterator[None]:
    """The file, while a process that was stopped in the middle of a change holds it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_file_that_another_process_holds_does_not_hold_up_the_work(
    connect: Connect, wire: HttpWire, api: Api, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.database.BUSY_SECONDS", 0.1)
    client = connect(wire.url, lenient=True, retries=0)
    client.spool.keep(machine("early"))
    with held(client.spool.path, how):
        client.sessions.create("odin", "laptop")
        client.instances.register("odin")
    eventually(lambda: not client.spool.has_any())

    assert projects(api) == {"odin"}
    assert len(ok(api.get("/api/machines"))["machines"]) == 2


def test_what_can_be_read_is_sent_though_nothing_can_be_written(
    connect: Connect, wire: HttpWire, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.database.BUSY_SECONDS", 0.1)
    client = connect(wire.url, retries=0)
    for number in range(3):
        client.spool.keep(machine(f"m{number}"))
    with held(client.spool.path, "IMMEDIATE"):
        while (entry := client.spool.first()) is not None:
            client.transport.send(entry.request)
            client.spool.done(entry)

    assert len(ok(api.get("/api/machines"))["machines"]) == 3


Spoil = Callable[[sqlite3.Connection], object]
STRANGE: dict[str, Spoil] = {
    "of a newer holdfast": lambda db: db.execute("PRAGMA user_version = 99"),
    "of something else": lambda db: db.execute("ALTER TABLE entry RENAME TO other"),
    "without a column": lambda db: db.execute("ALTER TABLE entry RENAME faults TO x"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_file_that_is_not_ours_to_understand_is_left_alone(
    lenient: Client, wire: HttpWire, api: Api, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    lenient.spool.keep(machine("early"))
    with closing(sqlite3.connect(lenient.spool.path)) as db, db:
        STRANGE[what](db)
    wire.down()
    with caplog.at_level(logging.WARNING):
        lenient.sessions.create("odin", "laptop")
    wire.up()
    eventually(lambda: projects(api) == {"odin"})
    with closing(sqlite3.connect(lenient.spool.path)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}

    assert {"entry", "other"} & tables


def test_a_file_of_a_newer_holdfast_is_told_of(lenient: Client) -> None:
    lenient.spool.keep(machine("early"))
    with closing(sqlite3.connect(lenient.spool.path)) as db, db:
        db.execute("PRAGMA user_version = 99")

    assert "newer" in str(lenient.spool.trouble())


def test_one_that_the_service_always_fails_over_does_not_block_what_is_in_memory(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    unusable(lenient.spool)
    fault = b'{"code": "internal_error", "message": "no", "request_id": "1"}'
    head = f"HTTP/1.1 500 -\r\nContent-Length: {len(fault)}\r\nConnection: close\r\n\r\n"
    wire.down()
    lenient.sessions.create("odin", "laptop")
    lenient.sessions.create("thor", "laptop")
    wire.answer(*[head.encode() + fault] * 5)
    wire.up()
    eventually(lambda: not lenient.spool.has_any())

    assert projects(api) == {"thor"}
