"""Who sent a signal decides what it means, and a service that does not answer delays no end."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, desk, ended_in_time
from clients.python.tests.test_supervisor_ends import (
    POLITE,
    POLITELY,
    AtTerminal,
    has_failed_as_interrupted,
    status_of,
)

from holdfast.spool import Spool
from tests.acceptance.serving import Api, name, ok
from tests.support.proxy import HttpWire, http_wire
from tests.support.waiting import eventually

# Where a signal's sender can be seen.
needs_senders = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="only Linux tells who sent a signal"
)


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


@pytest.fixture
def item(here: Desk) -> str:
    made = name("item")
    ok(here.api.post("/api/work-items", json={"item_id": made}), 201)
    return made


@needs_senders
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_what_somebody_sends_is_not_taken_for_a_key(
    here: Desk, item: str, number: signal.Signals
) -> None:
    """The terminal is as a shell leaves it, so Ctrl-C would make the same signal."""
    at = AtTerminal(here, "--claim", item, "--complete")
    with ended_in_time(at.process):
        at.until(b"up ")
        at.process.send_signal(number)
        assert at.process.wait(30) == 0
    has_failed_as_interrupted(here, at.run, item, number.name)


GOES_ON = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"heard\\n"))
os.write(1, b"up %d\\n" % os.getpid())
for line in sys.stdin:
    sys.exit(int(line))
"""


def test_a_key_may_be_meant_for_what_the_command_does(here: Desk, item: str) -> None:
    """And is heard once. An agent that takes it as "stop what you do" ends as it wants, later."""
    agent = (sys.executable, "-c", GOES_ON)
    at = AtTerminal(here, "--claim", item, "--complete", "--grace", "0", command=agent)
    with ended_in_time(at.process):
        at.until(b"up ")
        os.write(at.ours, b"\x03")
        at.until(b"heard\r\n")
        os.write(at.ours, b"0\n")
        assert at.process.wait(30) == 0
    assert at.run.session()["status"] == "completed"
    assert status_of(here, item) == "completed"


APART = "import os; os.setpgid(0, 0)" + POLITE


def test_a_key_reaches_a_command_in_a_group_of_its_own(here: Desk, item: str) -> None:
    """As ``timeout`` makes one, which it would not do if it were not supervised."""
    apart = (sys.executable, "-c", APART.replace("sys.stdin.read()", "signal.pause()"))
    at = AtTerminal(here, "--claim", item, "--complete", command=apart)
    with ended_in_time(at.process):
        at.until(b"up ")
        os.write(at.ours, b"\x03")
        assert at.process.wait(30) == 0
    has_failed_as_interrupted(here, at.run, item, "Ctrl-C")


@needs_senders
def test_the_command_has_the_signals_that_its_supervisor_waits_for(here: Desk) -> None:
    shows = "import signal; print([n.name for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    run = here.run(command=(sys.executable, "-c", shows))

    assert run.end() == 0
    assert run.printed == "[]\n"


# A service that takes every request and never answers


def asked(wire: HttpWire, *parts: str) -> list[bytes]:
    """The requests that were not answered, of which these are parts."""
    requests = [sent for sent in [*wire.unanswered] if sent.startswith((b"POST ", b"GET "))]
    return [one for one in requests if all(part.encode() in one for part in parts)]


@contextmanager
def frozen_later(api: Api, tmp_path: Path) -> Iterator[tuple[HttpWire, Desk]]:
    with (
        http_wire(str(api.base_url)) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        yield wire, here


def kept(wire: HttpWire, api: Api) -> list[str]:
    """What is to be sent once the service answers, in its order."""
    file = Spool(Path(os.environ["HOLDFAST_SPOOL_DIR"]), wire.url, api.key).path
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        return [path for (path,) in db.execute("SELECT path FROM entry ORDER BY number")]


def test_a_report_waits_once_for_who_does_not_answer(api: Api, tmp_path: Path) -> None:
    """`docker stop` kills soon: the report is on disk, and the service is asked once."""
    with frozen_later(api, tmp_path) as (wire, here):
        run = here.run(command=POLITELY)
        run.up()
        wire.freeze()
        run.process.terminate()

        assert run.end() == 0
        assert [path.rsplit("/", 1)[-1] for path in kept(wire, api)] == [
            "events",
            "mark-failed",
            "close",
        ]
        assert len(asked(wire, "/events")) == 1
        assert asked(wire, "/mark-failed") == asked(wire, "/close") == []


def test_who_is_stopped_between_two_attempts_reports_to_the_disk_first(
    api: Api, tmp_path: Path
) -> None:
    with frozen_later(api, tmp_path) as (wire, here):
        run = here.run("--restart", "always", "--backoff", "60", command=("true",))
        run.warned("it is started again in 60 seconds")
        wire.freeze()
        run.process.terminate()
        assert run.end() == 0
        assert kept(wire, api)[0].endswith("/mark-failed")
        assert len(asked(wire, "/mark-failed")) == 1


def test_who_asks_whether_to_start_again_hears_that_it_is_to_stop(api: Api, tmp_path: Path) -> None:
    """Once the service does not answer, the question alone takes longer than any grace."""
    item = name("item")
    ok(api.post("/api/work-items", json={"item_id": item}), 201)
    with frozen_later(api, tmp_path) as (wire, here):
        options = ("--claim", item, "--restart", "always", "--backoff", "2")
        run = here.run(*options, command=("sh", "-c", "echo up"))
        run.warned("it is started again in 2 seconds")
        wire.freeze()
        eventually(lambda: asked(wire, "/heartbeat"), "the question")
        run.process.terminate()

        assert run.end() == 0
        assert run.printed == "up\n"
        assert kept(wire, api)[0].endswith("/mark-failed")
