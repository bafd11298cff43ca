"""What cannot be sent is kept: in order, whole, and whatever happens to its file."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.errors import Conflict
from holdfast.request import Request, Write, new_key, new_placeholder
from holdfast.spool import BEAT_SECONDS, Entry, Spool

URL = "http://127.0.0.1:8080"
Open = Callable[..., Spool]


@pytest.fixture
def open_spool(tmp_path: Path) -> Open:
    """Opens the test's spool, as any process of the user would."""

    def begin(api_key: str | None = "key", **options: int) -> Spool:
        return Spool(tmp_path / "spool", URL, api_key, **options)

    return begin


@pytest.fixture
def spool(open_spool: Open) -> Spool:
    return open_spool()


def event(name: str, instance_id: str = "odin-PS-000000") -> Write:
    body = {"event_type": name, "event_data": {}}
    path = f"/api/instances/{instance_id}/events"
    return Write(Request("POST", path, body, idempotency_key=new_key()))


def beat(instance_id: str, percent: int) -> Write:
    path = f"/api/instances/{instance_id}/heartbeat"
    request = Request("POST", path, {"context_percent": percent}, idempotency_key=new_key())
    return Write(request, replaces=f"beat {instance_id}")


def drained(spool: Spool) -> list[Entry]:
    """All entries, in the order in which they would be sent."""
    found = []
    while (entry := spool.first()) is not None:
        found.append(entry)
        spool.done(entry)
    return found


def names(entries: list[Entry]) -> list[str]:
    return [str((entry.request.body or {})["event_type"]) for entry in entries]


def test_what_is_kept_outlives_its_process_in_order(open_spool: Open) -> None:
    first = open_spool()
    writes = [event(f"e{number}") for number in range(20)]
    for write in writes:
        first.keep(write)

    assert [entry.request for entry in drained(open_spool())] == [w.request for w in writes]
    assert drained(first) == []


def test_only_the_newest_heartbeat_of_each_is_kept(spool: Spool) -> None:
    for percent in range(100):
        spool.keep(beat("a", percent))
        spool.keep(beat("b", percent))
    spool.keep(event("after"))

    kept = [entry.request for entry in drained(spool)]
    assert [(r.path, r.body) for r in kept[:2]] == [
        ("/api/instances/a/heartbeat", {"context_percent": 99}),
        ("/api/instances/b/heartbeat", {"context_percent": 99}),
    ]
    assert len(kept) == 3


def test_a_heartbeat_of_another_process_is_not_sent_once_it_is_old(
    open_spool: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender may be dead, and would be taken for alive."""
    living, other = open_spool(), open_spool()
    monkeypatch.setattr("holdfast.spool.time.time", lambda: 1_000_000.0)
    living.keep(beat("a", 50))
    assert other.first() is not None
    monkeypatch.setattr("holdfast.spool.time.time", lambda: 1_000_001.0 + BEAT_SECONDS)

    assert other.first() is None
    assert living.first() is not None
    with other.delivering():
        assert living.first() is None


def test_nothing_is_said_to_be_sent_before_all_know_its_id(
    open_spool: Open, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hears that nothing is left may ask for what was created at once."""
    placeholder = new_placeholder("session")
    request = Request("POST", "/api/sessions", {}, idempotency_key=new_key())
    spool.keep(Write(request, creates="session"), placeholder=placeholder)
    entry = spool.first()
    assert entry is not None
    at_the_disk, may_go_on = threading.Event(), threading.Event()
    to_disk = spool._database.run

    def slowly(work: Callable[[sqlite3.Connection], None]) -> None:
        monkeypatch.setattr(spool._database, "run", to_disk)
        at_the_disk.set()
        may_go_on.wait()
        to_disk(work)

    told: list[tuple[bool, str | None]] = []
    monkeypatch.setattr(spool._database, "run", slowly)
    sender = threading.Thread(target=spool.done, args=(entry, "the-id"))
    sender.start()
    at_the_disk.wait()
    asker = threading.Thread(
        target=lambda: told.append((spool.has_any(), open_spool().real(placeholder)))
    )
    asker.start()
    asker.join(0.2)
    may_go_on.set()
    sender.join()
    asker.join()

    assert told == [(False, "the-id")]


def test_what_one_api_key_wrote_another_does_not_send(open_spool: Open) -> None:
    """Another key may lead into another team's namespace."""
    ours, theirs, nobody_s = open_spool("ours"), open_spool("theirs"), open_spool(None)
    ours.keep(event("ours"))
    theirs.keep(event("theirs"))
    nobody_s.keep(event("without a key"))

    assert ours.stats()[:2] == (1, 2)
    assert names(drained(ours)) == ["ours"]
    assert names(drained(theirs)) == ["theirs"]


def test_a_person_may_have_another_key_s_writes_sent_under_this_one(open_spool: Open) -> None:
    ours, mistyped, theirs = open_spool("ours"), open_spool("mistyped"), open_spool("theirs")
    mistyped.keep(event("mistyped"))
    theirs.keep(event("theirs"))
    open_spool(None).keep(event("without a key"))
    ours.keep(event("ours"))
    listed = {other.key_id: other.writes for other in ours.other_keys()}
    of_mistyped = mistyped.key_id

    assert (len(listed), {*listed.values()}) == (3, {1})
    assert ours.adopt(of_mistyped) == 1
    assert ours.adopt("none") == 1
    assert names(drained(ours)) == ["mistyped", "without a key", "ours"]
    assert names(drained(theirs)) == ["theirs"]


def test_what_belongs_to_something_of_another_key_waits_with_it(open_spool: Open) -> None:
    """It neither is lost nor holds up the rest."""
    ours, theirs = open_spool("ours"), open_spool("theirs")
    placeholder = new_placeholder("instance")
    creation = Write(Request("POST", "/api/instances", {}, idempotency_key="c"))
    theirs.keep(creation, placeholder=placeholder)
    ours.keep(event("of theirs", placeholder))
    ours.keep(event("ours"))
    entry = ours.first()
    assert entry is not None

    assert ours.let_wait_with_its_origin(entry)
    assert names(drained(ours)) == ["ours"]
    own = [entry for entry in drained(theirs) if entry.placeholder is None]
    assert names(own) == ["of theirs"]


def opened(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Gets one longer whenever the file is opened from now on."""
    times: list[None] = []
    run = spool._database.run

    def counted(work: Callable[[sqlite3.Connection], object]) -> object:
        times.append(None)
        return run(work)

    monkeypatch.setattr(spool._database, "run", counted)
    return times


def test_as_long_as_nothing_is_kept_the_file_is_not_opened(
    spool: Spool, open_spool: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write asks: a look at the file's times has to do."""
    spool.keep(event("one"))
    drained(spool)
    os.utime(spool.path, (1_000_000, 1_000_000))
    times = opened(spool, monkeypatch)
    assert [spool.has_any() for _ in range(100)] == [False] * 100
    assert len(times) == 1
    open_spool().keep(event("of another process"))

    assert spool.has_any()
    assert names(drained(spool)) == ["of another process"]


def test_what_another_process_keeps_within_one_step_of_the_clock_is_seen(
    spool: Spool, open_spool: Open
) -> None:
    other = open_spool()
    spool.keep(event("one"))
    drained(spool)
    assert not spool.has_any()
    before = spool.path.stat()
    other.keep(event("two"))
    os.utime(spool.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert spool.path.stat().st_size == before.st_size

    assert spool.has_any()


def test_many_processes_and_threads_share_one_spool(open_spool: Open) -> None:
    def work(number: int) -> None:
        spool = open_spool()
        for count in range(10):
            spool.keep(event(f"{number}-{count}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    kept = names(drained(open_spool()))
    assert sorted(kept) == sorted(f"{n}-{c}" for n in range(6) for c in range(10))
    for number in range(6):
        own = [name for name in kept if name.startswith(f"{number}-")]
        assert own == [f"{number}-{count}" for count in range(10)]


def test_one_at_a_time_sends_what_is_kept(open_spool: Open) -> None:
    one, another = open_spool(), open_spool()
    with one.delivering() as first, another.delivering() as second, one.delivering() as third:
        assert (first, second, third) == (True, False, False)
    with another.delivering() as free:
        assert free


KEEPER = """
import sys
from pathlib import Path
from holdfast.request import Request, Write
from holdfast.spool import Spool

spool = Spool(Path(sys.argv[1]), sys.argv[2], "key")
for number in range(1_000_000):
    body = {"event_type": str(number), "event_data": {"text": "x" * 20_000}}
    spool.keep(Write(Request("POST", "/api/instances/a/events", body, idempotency_key=str(number))))
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 23])
def test_a_process_killed_in_the_midst_of_a_write_loses_nothing_that_was_kept(
    open_spool: Open, tmp_path: Path, after: int
) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(tmp_path / "spool"), URL],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    for _ in range(after):
        keeper.stdout.readline()
    os.kill(keeper.pid, signal.SIGKILL)
    kept = after + len(keeper.stdout.read().splitlines())
    keeper.wait()
    keeper.stdout.close()

    spool = open_spool()
    spool.keep(event("next"))
    found = names(drained(spool))
    assert found[:kept] == [str(number) for number in range(kept)]
    # At most the one that was being written is there without having been acknowledged.
    assert found[kept:] in (["next"], [str(kept), "next"])


def test_a_sender_that_was_killed_does_not_keep_others_from_sending(
    open_spool: Open, tmp_path: Path
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from holdfast.spool import Spool\n"
        f"with Spool(Path(sys.argv[1]), {URL!r}, 'key').delivering() as ours:\n"
        "    print(ours, flush=True); time.sleep(600)"
    )
    sender = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
    )
    assert sender.stdout is not None
    assert sender.stdout.readline() == "True\n"
    spool = open_spool()
    with spool.delivering() as while_it_lives:
        assert not while_it_lives
    sender.kill()
    sender.wait()
    sender.stdout.close()

    with spool.delivering() as afterwards:
        assert afterwards


@pytest.mark.parametrize("damage", ["garbage", "torn", "middle"])
def test_a_damaged_file_is_put_aside_and_the_work_goes_on(
    spool: Spool, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    for number in range(50):
        spool.keep(event(f"{number}", "x" * 500))
    content = spool.path.read_bytes()
    if damage == "garbage":
        spool.path.write_bytes(b"no database at all" * 1_000)
    elif damage == "torn":
        spool.path.write_bytes(content[: len(content) // 2 + 100])
    else:
        spool.path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))

    spool.keep(event("after the damage"))
    spool.keep(event("and on"))

    assert names(drained(spool)) == ["after the damage", "and on"]
    assert len([*spool.path.parent.glob("*.damaged-*")]) == 1
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text


def test_on_a_full_disk_the_work_goes_on_with_one_warning(
    open_spool: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spool = open_spool(max_bytes=64 * 1024)
    for number in range(40):
        spool.keep(event(f"{number}", "x" * 4_000))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "full" in caplog.text
    assert spool.stats().kept == 40
    assert names(drained(spool)) == [str(number) for number in range(40)]


def test_what_was_kept_in_memory_goes_to_the_disk_once_it_can(
    spool: Spool, open_spool: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spool.path.parent.write_text("a file where the folder should be")
    for number in range(3):
        spool.keep(event(f"{number}"))
        spool.keep(beat("a", number))
    spool.path.parent.unlink()
    spool.keep(event("3"))

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    entries = drained(open_spool())
    assert names([e for e in entries if e.replaces is None]) == ["0", "1", "2", "3"]
    assert len(entries) == 5


def test_a_file_that_is_busy_for_long_is_not_taken_for_an_empty_one(
    spool: Spool, open_spool: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or new work would overtake what is kept; what was kept meanwhile goes behind it."""
    spool.keep(event("one"))
    monkeypatch.setattr("holdfast.database.BUSY_SECONDS", 0.01)
    holding = sqlite3.connect(spool.path, isolation_level=None)
    holding.execute("BEGIN EXCLUSIVE")
    assert open_spool().has_any()
    spool.keep(event("two"))
    assert spool.first() is None
    holding.execute("COMMIT")
    holding.close()

    assert spool.first() is not None
    assert names(drained(open_spool())) == ["one", "two"]


def test_what_was_refused_stays_to_be_looked_at(spool: Spool, open_spool: Open) -> None:
    spool.keep(event("one"))
    spool.keep(event("two"))
    first = spool.first()
    assert first is not None
    spool.set_aside(first, Conflict("The instance has been closed.", code="instance_closed"))

    [refused] = open_spool().refused()
    assert (refused.path, refused.code) == (first.path, "instance_closed")
    assert names(drained(spool)) == ["two"]


def test_placeholders_become_ids_wherever_they_stand(spool: Spool, open_spool: Open) -> None:
    placeholder = new_placeholder("session")
    body = {
        "session_id": placeholder,
        "metadata": {"list": [placeholder], "text": f"in {placeholder}"},
    }
    write = Write(Request("POST", f"/api/sessions/{placeholder}/x", body, idempotency_key="k"))
    spool.keep(
        Write(Request("POST", "/api/sessions", {}, idempotency_key="c")), placeholder=placeholder
    )

    assert spool.resolved(write.request) is None
    assert spool.is_awaited(write.request)
    creation = spool.first()
    assert creation is not None
    spool.done(creation, "the-id")

    resolved = open_spool().resolved(write.request)
    assert resolved is not None
    assert resolved.path == "/api/sessions/the-id/x"
    assert resolved.body == {
        "session_id": "the-id",
        "metadata": {"list": ["the-id"], "text": "in the-id"},
    }


def test_the_file_is_its_owner_s_only(spool: Spool) -> None:
    """What agents record may be nobody else's business."""
    spool.keep(event("secret"))

    assert spool.path.stat().st_mode & 0o077 == 0
    assert spool.path.parent.stat().st_mode & 0o077 == 0


def test_a_file_that_another_process_uses_is_waited_for(spool: Spool) -> None:
    spool.keep(event("one"))
    holding = sqlite3.connect(spool.path, isolation_level=None)
    holding.execute("BEGIN EXCLUSIVE")
    keeping = threading.Thread(target=spool.keep, args=[event("two")])
    keeping.start()
    holding.execute("COMMIT")
    holding.close()
    keeping.join()

    assert names(drained(spool)) == ["one", "two"]


def test_keeping_needs_the_standard_library_only() -> None:
    """An agent's hook that hands over to the spool must not wait for imports."""
    code = "import sys, holdfast.spool; print([m for m in ('httpx', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
