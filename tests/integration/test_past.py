"""Reads of the past: on connections and threads of their own, and cancelled with whoever asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from application.history import History
from application.past import READERS, SEARCHERS_EACH
from application.sessions import BeatSession, CreateSession
from domain.errors import Unavailable
from interfaces.access.auth import ApiKeys
from interfaces.host.bootstrap import Service
from interfaces.host.settings import Settings
from tests.support.postgres import ask
from tests.support.waiting import eventually
from tests.support.wiring import Loop, context, done

KEY = "a-key-for-tests-0123456789"
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND state = 'active' AND query LIKE '%%' || %s || '%%' AND pid <> pg_backend_pid()"
)


class Running:
    """A process of the service, and the loop that it runs in."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = url
        self.loop = Loop()
        settings = Settings(database_url=url, data_dir=data_dir, sweep_seconds=86_400)
        keys = ApiKeys.parse(KEY)
        self.service = self.loop.run(self._built(settings, url, keys))
        self.loop.run(self.service.start())

    async def _built(self, settings: Settings, url: str, keys: ApiKeys) -> Service:
        return Service(settings, url, keys)

    def close(self) -> None:
        self.loop.run(self.service.stop())
        self.loop.close()

    def do(self, command: object) -> str:
        """Carry out a command; its reply's session."""
        outcome = self.loop.run(self.service.submit(command, context(command)))
        return str(done(outcome)["session_id"])

    def sleeping(self, seconds: float, namespace: str, *, search: bool = True) -> Future[None]:
        """A read of the past that takes this long."""
        lane = self.service.history.search if search else self.service.history.ask
        return self.loop.start(lane(asleep, namespace, seconds))

    def asleep(self) -> int:
        """How many reads the database is at."""
        return int(ask(self.url, RUNNING, "pg_sleep")[0][0])


def asleep(history: History, namespace: str, seconds: float) -> None:
    with history._store._connection() as connection:
        connection.execute("SELECT pg_sleep(%s)", [seconds])


@pytest.fixture
def running(database: str, tmp_path: Path) -> Iterator[Running]:
    service = Running(database, tmp_path)
    try:
        yield service
    finally:
        service.close()


def test_while_long_reads_of_the_past_are_under_way_everything_else_goes_on(
    running: Running,
) -> None:
    """More searches and reads than there are connections for: commands and jobs do not notice."""
    session_id = running.do(CreateSession(project_id="p", machine_id="m"))
    reads = [
        running.sleeping(60, f"team-{n % 4}", search=search)
        for n in range(12)
        for search in (True, False)
    ]
    eventually(lambda: running.asleep() >= READERS + SEARCHERS_EACH, "reads under way")
    for _ in range(20):
        assert running.do(BeatSession(session_id=session_id)) == session_id
    # What runs on the threads that jobs use, is not behind them either.
    jobs = running.service._jobs_store
    assert running.loop.run(in_thread(jobs.head))
    for read in reads:
        read.cancel()
    eventually(lambda: running.asleep() == 0, "the end of all reads")


async def in_thread(head: object) -> bool:
    assert callable(head)
    return bool(await asyncio.to_thread(head, "default"))


def test_one_namespace_s_searches_leave_room_for_another_s(running: Running) -> None:
    loud = [running.sleeping(60, "loud") for _ in range(10)]
    eventually(lambda: running.asleep() == SEARCHERS_EACH, "its share of searches")
    running.sleeping(0.01, "quiet").result(30)
    assert running.asleep() == SEARCHERS_EACH
    for read in loud:
        read.cancel()
    eventually(lambda: running.asleep() == 0, "the end of all searches")
    running.sleeping(0.01, "loud").result(30)


def test_searches_do_not_hold_up_reads_of_the_same_namespace(running: Running) -> None:
    searches = [running.sleeping(60, "default") for _ in range(10)]
    eventually(lambda: running.asleep() == SEARCHERS_EACH, "searches")
    assert running.loop.run(running.service.history.ask(History.head, "default")) == 0
    for search in searches:
        search.cancel()


def test_a_read_that_waits_for_its_turn_too_long_is_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("application.past.TURN_SECONDS", 0.05)
    reads = [running.sleeping(60, "default") for _ in range(SEARCHERS_EACH)]
    eventually(lambda: running.asleep() == SEARCHERS_EACH, "searches")
    late = running.sleeping(0, "default")
    assert isinstance(late.exception(15), Unavailable)
    for read in reads:
        read.cancel()
