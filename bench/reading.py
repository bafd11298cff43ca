"""Measures of the read side: replies to one client, the projector."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from uuid import uuid4

import psycopg

from bench.figures import BenchError, Effort, Figure, Watch, median, percentile
from bench.history import (
    NAMESPACE,
    Fleet,
    Writer,
    open_sessions,
    session_id,
    writing,
)
from bench.load import Client, beats, constant_rate, touch
from bench.servers import Stage, positions, settle, tidy, watching

KNOWN_SESSIONS = 10_000
FLEET = 1_000
LAG_RATE = 1_000
LOOK_SECONDS = 0.002
CATCH_UP_SECONDS = 120.0


def replies(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """What one client waits for who asks for one thing after the other, 10,000 sessions known.

    Each read follows a creation at once, so it waits until the read models include that.
    """
    kinds = ("session_create_p95", "session_list_p95", "session_lookup_p95", "session_health_p95")
    with stage.database() as database, stage.holdfast(database) as server:
        watch("opening sessions", 0, 2 * effort.samples)
        open_sessions(database, KNOWN_SESSIONS)
        settle(database)
        tidy(database)
        client = Client(server)
        for number in range(20):
            _create(client)
            _read(client, kinds[1 + number % 3], number)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(effort.samples):
            watch("reads after a write", number, 2 * effort.samples)
            for kind in kinds[1:]:
                taken[kinds[0]].append(_create(client))
                taken[kind].append(_read(client, kind, number))
        at_rest: dict[str, list[float]] = {kind: [] for kind in kinds}
        settle(database)
        for number in range(effort.samples):
            watch("reads at rest", effort.samples + number, 2 * effort.samples)
            for kind in kinds[1:]:
                at_rest[kind].append(_read(client, kind, number))
    for kind in kinds:
        details = {
            "p50_ms": percentile(taken[kind], 50),
            "p99_ms": percentile(taken[kind], 99),
            "requests": len(taken[kind]),
        }
        if at_rest[kind]:
            details["p95_ms_without_writes"] = percentile(at_rest[kind], 95)
        yield Figure(kind, percentile(taken[kind], 95), details)


def _create(client: Client) -> float:
    place = {"project_id": "bench", "machine_id": f"machine-{uuid4().hex[:12]}"}
    return client.timed("POST", "/api/sessions", place)


def _read(client: Client, kind: str, number: int) -> float:
    path = {
        "session_list_p95": "/api/sessions?limit=100",
        "session_lookup_p95": f"/api/sessions/{session_id(number * 37 % KNOWN_SESSIONS)}",
        "session_health_p95": "/api/sessions/health",
    }
    return client.timed("GET", path[kind])


def projector(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """How fast a backlog is folded, and how late the read models are under steady load."""
    steps = 2 * effort.passes + 2
    with stage.database() as database, stage.holdfast(database) as server:
        watch("opening sessions", 0, steps)
        fleet = Fleet(open_sessions(database, FLEET))
        settle(database)
        rates = []
        events = 0
        for number in range(effort.passes):
            watch(f"writing backlog {number + 1} of {effort.passes}", 2 * number, steps)
            with watching(database) as connection, writing(database) as writer:
                seconds, events = _catch_up(connection, fleet, writer, effort.backlog)
            rates.append(events / seconds)
            watch(f"caught up with {events} events", 2 * number + 1, steps)
        tidy(database)
        ids = [session_id(number) for number in range(FLEET)]
        touch(server, ids)
        settle(database)
        watch(f"{LAG_RATE}/s for {effort.lag_seconds} s", steps - 1, steps)
        with (
            Lookout(database) as lookout,
            constant_rate(server, beats(ids), LAG_RATE, effort.lag_seconds) as load,
        ):
            outcome = load.finish()
            settle(database)
        lags = lookout.lags_ms(outcome.acknowledged)
    yield Figure(
        "projector_rate",
        median(rates),
        {"backlog_events": events, "slowest": min(rates), "fastest": max(rates)},
    )
    yield Figure(
        "projection_lag_p99",
        percentile(lags, 99),
        {
            "p50_ms": percentile(lags, 50),
            "max_ms": max(lags),
            "heartbeats": len(lags),
            "reply_p99_ms_meanwhile": percentile(outcome.latencies_ms, 99),
        },
    )


def _catch_up(
    connection: psycopg.Connection, fleet: Fleet, writer: Writer, backlog: int
) -> tuple[float, int]:
    """Write a backlog while the projector is held, let it go: seconds until it is at the head.

    The rows that elect the projector are locked meanwhile, so the service's own thread does the
    work, awake, connected, with the whole backlog before it.
    """
    with connection.transaction():
        connection.execute(
            "SELECT FROM projections.positions WHERE namespace = %s FOR UPDATE",
            [NAMESPACE],
        )
        before = positions(connection)
        fleet.live(writer, backlog)
        # Sent at the end of the transaction: it wakes the projector as an append would.
        connection.execute("SELECT pg_notify('holdfast_log', %s)", [NAMESPACE])
    released = time.monotonic()
    while (now := positions(connection)).projected < now.head:
        if time.monotonic() - released > CATCH_UP_SECONDS:
            raise BenchError("the projector does not catch up")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - released, now.head - before.projected


class Lookout:
    """Notes at which moments the read models had come how far, from a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._seen: list[tuple[int, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Lookout:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def lags_ms(self, acknowledged: list[tuple[float, int]]) -> list[float]:
        """From each acknowledgement to the first look that found its event in the read models.

        Too long by up to the time between two looks; never negative.
        """
        lags = []
        for heard, position in acknowledged:
            found = bisect_left(self._seen, (position, 0.0))
            if found == len(self._seen):
                raise BenchError(f"the event at {position} never reached the read models")
            lags.append(max(0.0, (self._seen[found][1] - heard) * 1000))
        return lags

    def _run(self) -> None:
        with watching(self._url) as connection:
            while True:
                last = self._stopping.is_set()
                projected = positions(connection).projected
                if not self._seen or projected > self._seen[-1][0]:
                    self._seen.append((projected, time.monotonic()))
                if last:
                    return
                self._stopping.wait(LOOK_SECONDS)
