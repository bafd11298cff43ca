"""Its own outage, or sleep, is not taken for others' death (spec 5, field case 9).

Thresholds are short, so that an absence longer than all of them can be waited for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import LiteralString, NamedTuple

import httpx
import pytest

from application.eventstore.migrate import migrate
from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.queue import Queue
from tests.acceptance.serving import Api, Json, Server, cloned, eventually, ok, refused
from tests.support.killable import KillablePostgres
from tests.support.postgres import as_owner, ask, ask_one

THRESHOLDS = {
    "STALL_THRESHOLD_MS": "5000",
    "INSTANCE_STALE_SECONDS": "5",
    "CLAIM_STALE_SECONDS": "6",
    "SWEEP_SECONDS": "0.5",
}
SESSION = timedelta(seconds=5)
CLAIM = timedelta(seconds=6)
LONGER_THAN_ALL = timedelta(seconds=8)


class Crew(NamedTuple):
    """Who was there before the absence, by id, and what they hold."""

    alive: str
    dead: str
    instance: str
    rival: Json

    @classmethod
    def at_work(cls, api: Api, url: str) -> Crew:
        """A session and an instance that hold an item each, a session that dies, and a rival."""
        queue, fleet = Queue(api), Fleet(api, url)
        alive, dead = api.session(), api.session()
        instance = fleet.register()
        queue.claim("of the living", alive)
        queue.claim("of the dead", dead)
        queue.claim("of the instance", instance)
        rival = api.session()
        beat_all(api, alive["session_id"], dead["session_id"], rival["session_id"])
        fleet.beat(instance["instance_id"])
        return cls(alive["session_id"], dead["session_id"], instance["instance_id"], rival)


def beat_all(api: Api, *session_ids: str) -> None:
    for session_id in session_ids:
        api.beat(session_id)


def absent(url: str, since: datetime, period: timedelta = LONGER_THAN_ALL) -> None:
    """Wait until the database's clock is so much later."""
    eventually(
        "the end of the absence",
        lambda: ask_one(url, "SELECT clock_timestamp()") > since + period,
    )


def clock(url: str) -> datetime:
    now: datetime = ask_one(url, "SELECT clock_timestamp()")
    return now


def in_time(url: str) -> bool:
    """Whether no threshold has passed since the service came back: a slow machine may take long."""
    return bool(clock(url) < came_back(url) + SESSION)


def came_back(url: str) -> datetime:
    """When the service was there again."""
    since: datetime = ask_one(
        url, "SELECT started_at FROM serving_intervals ORDER BY interval_num DESC LIMIT 1"
    )
    return since


def nobody_was_silent(api: Api, url: str, crew: Crew, went: datetime) -> None:
    """Given that the service is back, then all that it says and decides knows of its absence."""
    try:
        _nobody_was_silent(api, url, crew, went)
    except AssertionError:
        if in_time(url):
            raise
        pytest.skip("this machine is too slow at the moment to look before a threshold passes")


def _nobody_was_silent(api: Api, url: str, crew: Crew, went: datetime) -> None:
    queue, fleet = Queue(api), Fleet(api, url)
    # Decisions.
    for held in ("of the living", "of the instance"):
        details = refused(queue.ask(held, crew.rival, takeover=True), 409, "claim_held")["details"]
        assert details["stale"] is False
        assert details["seconds_until_takeover"] > 0
        assert details["heartbeat_age_seconds"] > LONGER_THAN_ALL.total_seconds()
        assert _is_between(details["unknown_since"], went)
    session = api.get_session(crew.alive)
    same_place = {"project_id": session["project_id"], "machine_id": session["machine_id"]}
    refused(api.post("/api/sessions", json=same_place), 409, "session_exists")
    refused(api.recover(crew.alive, "elsewhere"), 400, "not_recoverable")
    refused(api.post(f"/api/instances/{crew.instance}/resume", json={}), 409, "instance_alive")
    noted = ok(api.post("/api/sessions/detect-failures"))
    assert (noted["stalled"], noted["instances_stale"]) == (0, 0)
    # Reads.
    assert session["status"] == "active"
    assert _is_between(session["unknown_since"], went)
    assert ok(api.get("/api/sessions/stalled"))["stalled_sessions"] == []
    assert ok(api.get("/api/sessions/health"))["stalled_sessions"] == 0
    health = ok(api.get(f"/api/sessions/{crew.alive}/health"))
    assert health["status"] == "active"
    assert (health["is_healthy"], health["is_stalled"]) == (True, False)
    assert health["time_since_heartbeat_ms"] > LONGER_THAN_ALL.total_seconds() * 1000
    assert _is_between(health["unknown_since"], went)
    listed = ok(api.get("/api/sessions"))["sessions"]
    assert {s["status"] for s in listed} == {"active"}
    live = {s["session_id"]: s for s in ok(api.get("/api/sessions/active"))["sessions"]}
    assert live[crew.alive]["computed_status"] == "active"
    assert live[crew.alive]["seconds_until_stale"] > 0
    instance = fleet.get(crew.instance)
    assert (instance["status"], instance["health"]) == ("active", "healthy")
    assert _is_between(instance["unknown_since"], went)
    assert ok(api.get("/api/v1/registry/health"))["counts"]["stale"] == 0
    item = queue.item("of the living")
    assert (item["stale"], queue.get_claim("of the living")["stale"]) == (False, False)
    assert _is_between(item["unknown_since"], went)
    # Analysts.
    assert ask(url, "SELECT * FROM public.stalled_sessions") == []
    assert ask(url, "SELECT DISTINCT status FROM public.v_active_sessions") == [("active",)]
    assert ask(url, "SELECT DISTINCT status FROM public.supervisor_sessions") == [("active",)]


def _is_between(told: str, went: datetime) -> bool:
    """Whether that is a time about when the service went, and not when it came back."""
    return bool(abs(datetime.fromisoformat(told) - went) < timedelta(seconds=3.5))


def the_living_go_on_and_the_dead_are_found(api: Api, url: str, crew: Crew) -> None:
    """Given that only some beat again, then the others are silent after a whole threshold."""
    back = came_back(url)
    queue = Queue(api)
    beaten = api.beat(crew.alive)
    assert (beaten["status"], beaten["stale"], beaten["unknown_since"]) == ("active", False, None)
    assert beaten["age_seconds"] > LONGER_THAN_ALL.total_seconds()
    assert api.get_session(crew.alive)["unknown_since"] is None

    def found() -> bool:
        beat_all(api, crew.alive, crew.rival["session_id"])
        return bool(api.get_session(crew.dead)["status"] == "stalled")

    eventually("the stall of the dead one", found)
    assert clock(url) > back + SESSION
    assert api.get_session(crew.dead)["unknown_since"] is None

    def taken() -> httpx.Response | None:
        beat_all(api, crew.alive, crew.rival["session_id"])
        reply = queue.ask("of the dead", crew.rival, takeover=True)
        return reply if reply.status_code != 409 else None

    ok(eventually("the takeover from the dead one", taken), 201)
    assert clock(url) > back + CLAIM
    refused(queue.ask("of the living", crew.rival, takeover=True), 409, "claim_held")
    # Not one stall was recorded before a whole threshold had passed.
    times = ask(
        url,
        """SELECT stream_id, "timestamp" FROM event_store
           WHERE event_type IN ('session_stalled', 'instance_stale', 'claim_taken_over')""",
    )
    assert crew.dead in {stream.removeprefix("session-") for stream, _ in times}
    assert crew.alive not in {stream.removeprefix("session-") for stream, _ in times}
    assert all(at > back + SESSION for _, at in times)


def it_is_told_when_the_service_was_away(api: Api, went: datetime) -> None:
    """Given an absence, then the intervals before and after it are told, the latest first."""
    told = ok(api.get("/api/serving"))
    now, before = told["intervals"][:2]
    assert (now["is_current"], before["is_current"]) == (True, False)
    assert told["serving_since"] == now["started_at"]
    assert told["absent_since"] == before["last_at"]
    assert _is_between(before["last_at"], went)
    away = datetime.fromisoformat(now["started_at"]) - datetime.fromisoformat(before["last_at"])
    assert away > LONGER_THAN_ALL - timedelta(seconds=1)
    assert told["total_count"] == len(told["intervals"])


# Each of these waits most of the time, for an absence and for a threshold after it. So those that
# do not disturb each other wait at once.


def at_once(*situations: Callable[[], None]) -> None:
    """Go through all of them; if one fails, so does the test, and else if one had to be skipped."""
    with ThreadPoolExecutor(len(situations)) as pool:
        ended = [pool.submit(situation).exception for situation in situations]
        failures = [failure for exception in ended if (failure := exception()) is not None]
    for failure in sorted(failures, key=lambda failure: isinstance(failure, pytest.skip.Exception)):
        raise failure


def test_away_for_longer_than_the_thresholds(
    cluster: EmbeddedPostgres, template: str, start: Start
) -> None:
    """Given a service that is killed, frozen, or cannot write, then nobody was silent meanwhile."""

    def beside(situation: Callable[[str, Start], None]) -> Callable[[], None]:
        def go() -> None:
            with cloned(cluster, template) as url:
                situation(url, start)

        return go

    at_once(
        *map(beside, (killed_and_started_again, frozen_meanwhile, no_event_taken, another_serves))
    )


def test_its_database_is_away_for_longer_than_the_thresholds(data_dir: Path, start: Start) -> None:
    """Given a database that is killed, or can only be read, then nobody was silent meanwhile."""

    def beside(
        name: str, situation: Callable[[KillablePostgres, Start], None]
    ) -> Callable[[], None]:
        def go() -> None:
            with KillablePostgres(data_dir / name) as postgres:
                url = postgres.url_of("postgres")
                migrate(url)
                schema.install(url)
                situation(postgres, start)

        return go

    at_once(beside("killed", database_killed), beside("read", database_only_read))


def killed_and_started_again(database: str, start: Start) -> None:
    """The service itself, by SIGKILL."""
    with start(database, **THRESHOLDS) as server, server.default() as api:
        crew = Crew.at_work(api, database)
        server.process.kill()
        server.process.wait()
    went = clock(database)
    absent(database, went)
    with start(database, **THRESHOLDS) as server, server.default() as api:
        nobody_was_silent(api, database, crew, went)
        it_is_told_when_the_service_was_away(api, went)
        the_living_go_on_and_the_dead_are_found(api, database, crew)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server's process stands still, as in a suspended machine."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def frozen_meanwhile(database: str, start: Start) -> None:
    """The process is frozen while a rival waits for its answer, which is a refusal."""
    with (
        start(database, **THRESHOLDS) as server,
        server.default() as api,
        server.default() as waiting,
        ThreadPoolExecutor(1) as pool,
    ):
        crew = Crew.at_work(api, database)
        waiting.timeout = 60
        with frozen(server):
            went = clock(database)
            # The first that the process has to do when it goes on.
            takeover = pool.submit(Queue(waiting).ask, "of the living", crew.rival, takeover=True)
            absent(database, went)
        refused(takeover.result(), 409, "claim_held")
        nobody_was_silent(api, database, crew, went)
        the_living_go_on_and_the_dead_are_found(api, database, crew)


def _beat(api: Api, session: Json) -> int:
    return api.post(f"/api/sessions/{session['session_id']}/heartbeat", json={}).status_code


def database_killed(private_cluster: KillablePostgres, start: Start) -> None:
    """The database is away while the service runs."""
    url = private_cluster.url_of("postgres")
    with start(url, **THRESHOLDS) as server, server.default() as api:
        crew = Crew.at_work(api, url)
        went = clock(url)
        private_cluster.kill()
        eventually("a refusal", lambda: _beat(api, crew.rival) == 503)
        away = time.monotonic() + LONGER_THAN_ALL.total_seconds()
        eventually("the end of the absence", lambda: time.monotonic() > away)
        private_cluster.start()
        eventually("an answer", lambda: _beat(api, crew.rival) == 200)
        nobody_was_silent(api, url, crew, went)
        the_living_go_on_and_the_dead_are_found(api, url, crew)


@contextmanager
def full_disk(url: str) -> Iterator[None]:
    """The database reads, and takes no event."""
    with as_owner(url) as connection:
        connection.execute(
            """CREATE FUNCTION public.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full';
               END $$;
               CREATE TRIGGER full_disk BEFORE INSERT ON event_store
               FOR EACH STATEMENT EXECUTE FUNCTION public.full()"""
        )
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION public.full CASCADE")


def no_event_taken(database: str, start: Start) -> None:
    """The database answers but takes no event: who cannot store a heartbeat does not serve."""
    with start(database, **THRESHOLDS) as server, server.default() as api:
        crew = Crew.at_work(api, database)
        with full_disk(database):
            went = clock(database)

            def is_over() -> bool:
                assert _beat(api, crew.rival) == 503
                return bool(clock(database) > went + LONGER_THAN_ALL)

            eventually("the end of the absence", is_over)
        nobody_was_silent(api, database, crew, went)
        the_living_go_on_and_the_dead_are_found(api, database, crew)


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """The server takes no writes, as a standby, or one that was closed before its disk was full."""

    def change(statement: LiteralString) -> None:
        with as_owner(url) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")

    change("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        yield
    finally:
        change("ALTER SYSTEM RESET default_transaction_read_only")


def database_only_read(private_cluster: KillablePostgres, start: Start) -> None:
    """The database takes no writes: beats are 503, and it heals by itself."""
    url = private_cluster.url_of("postgres")
    with start(url, **THRESHOLDS) as server, server.default() as api:
        crew = Crew.at_work(api, url)
        with read_only(url):
            eventually("a refusal", lambda: _beat(api, crew.rival) == 503)
            went = clock(url)

            def is_over() -> bool:
                assert _beat(api, crew.rival) == 503
                return bool(clock(url) > went + LONGER_THAN_ALL)

            eventually("the end of the absence", is_over)
        eventually("an answer", lambda: _beat(api, crew.rival) == 200)
        nobody_was_silent(api, url, crew, went)
        the_living_go_on_and_the_dead_are_found(api, url, crew)
        assert ok(api.get("/health"))["database"] == "ok"
        assert not server.lines("touch_failed")


def another_serves(database: str, start: Start) -> None:
    """Of two processes one is frozen; as the other can hear who is silent, silence counts."""
    with (
        start(database, **THRESHOLDS) as serving,
        start(database, **THRESHOLDS) as other,
        serving.default() as api,
        other.default() as woken,
    ):
        crew = Crew.at_work(api, database)
        queue = Queue(api)
        with frozen(other):

            def taken() -> bool:
                beat_all(api, crew.rival["session_id"])
                return queue.ask("of the dead", crew.rival, takeover=True).status_code == 201

            eventually("the takeover", taken)
            assert api.get_session(crew.dead)["status"] == "stalled"
        # And so does the one that was frozen, as soon as it wakes.
        assert woken.get_session(crew.dead)["status"] == "stalled"
        ok(Queue(woken).ask("of the living", crew.rival, takeover=True), 201)
        assert ok(woken.get("/api/serving"))["total_count"] == 1
