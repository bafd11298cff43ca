"""The writer takes the namespaces in turn, and no batch is too large."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from application.engine import engine as engine_module
from application.engine import snapshots as snapshots_module
from application.eventstore.records import Appended
from application.sessions import BeatSession, CreateSession, UpdateSession
from domain.errors import Unavailable
from domain.sessions.session import Session
from tests.support.postgres import log_held, wait_until_blocked
from tests.support.wiring import Done, Service, context, done, service

KIB = 1024


@pytest.fixture
def here(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


def sized(
    here: Service, command: object, namespace: str, size: int, key: str | None = None
) -> Future[Done]:
    """Hand over a command whose request was this large."""

    async def submit() -> Done:
        given = context(command, key, namespace)._replace(size=size)
        return done(await here.engine.submit(command, given))

    return here.loop.start(submit())


def test_a_namespace_waits_for_one_turn_of_another_however_much_that_one_sent(
    here: Service,
) -> None:
    """40 requests of 200 KiB come first: the other namespace waits for ten of them at most."""
    loud = here.open_session()
    open_quiet = CreateSession(project_id="p", machine_id="m")
    quiet = here.do(open_quiet, namespace="quiet")["session_id"]
    ended: list[str] = []
    with log_held(here.url):
        first = here.begin(BeatSession(session_id=loud))
        wait_until_blocked(here.url)
        large = []
        for number in range(40):
            note = UpdateSession(session_id=loud, metadata={"n": number})
            future = sized(here, note, "default", 200 * KIB)
            future.add_done_callback(lambda _: ended.append("loud"))
            large.append(future)
        small = sized(here, BeatSession(session_id=quiet), "quiet", 10)
        small.add_done_callback(lambda _: ended.append("quiet"))
    assert first.result(60).status == 200
    assert small.result(60).status == 200
    assert all(future.result(60).status == 200 for future in large)
    assert ended.index("quiet") <= 11
    assert here.session(loud).metadata == {"n": 39}


def test_replies_that_are_kept_count_for_a_batch_s_size(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small beats with keys, of a session with much metadata: what is stored is bounded."""
    monkeypatch.setattr(engine_module, "BATCH_BYTES", 200 * KIB)
    session_id = here.open_session(metadata={"text": "x" * 50 * KIB})
    stored: list[int] = []
    append = here.store.append

    def counted(*given: Any) -> Appended:
        stored.append(len(given[3]))
        return append(*given)

    monkeypatch.setattr(here.store, "append", counted)
    with log_held(here.url):
        first = here.begin(BeatSession(session_id=session_id))
        wait_until_blocked(here.url)
        beats = [
            sized(here, BeatSession(session_id=session_id), "default", 10, str(uuid.uuid4()))
            for _ in range(30)
        ]
    assert first.result(60).status == 200
    assert all(beat.result(60).status == 200 for beat in beats)
    assert len({beat.result().position for beat in beats}) == 30
    assert sum(stored) == 30
    assert max(stored) <= 5


def test_what_a_namespace_may_have_waiting_is_bounded_for_it_alone(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = here.open_session()
    open_quiet = CreateSession(project_id="p", machine_id="m")
    quiet = here.do(open_quiet, namespace="quiet")["session_id"]
    monkeypatch.setattr(engine_module, "NAMESPACE_BYTES", 500 * KIB)
    with log_held(here.url):
        first = here.begin(BeatSession(session_id=loud))
        wait_until_blocked(here.url)
        accepted = [
            sized(here, BeatSession(session_id=loud), "default", 200 * KIB) for _ in range(3)
        ]
        refused = sized(here, BeatSession(session_id=loud), "default", 10)
        assert isinstance(refused.exception(10), Unavailable)
        other = sized(here, BeatSession(session_id=quiet), "quiet", 10)
    for future in [first, *accepted, other]:
        assert future.result(60).status == 200


def test_a_stream_of_large_events_is_quick_to_load(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is kept once much was written since the last, not only by number of events."""
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_BYTES", 600 * KIB)
    session_id = here.open_session()
    for number in range(10):
        note = UpdateSession(session_id=session_id, metadata={"t": "x" * 5 * KIB, "n": number})
        sized(here, note, "default", 200 * KIB).result(60)
    loaded = here.store.load("default", {f"session-{session_id}": Session.state_version})
    assert len(loaded) <= 5
    assert here.session(session_id).metadata["n"] == 9
