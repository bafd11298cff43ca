"""Measures of the write path: throughput, latency at a steady rate, bytes on disk."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle

import orjson
import psycopg

from bench.agents import TURN, instance_id, register
from bench.figures import BenchError, Detail, Effort, Figure, Watch, median, percentile
from bench.history import open_sessions, session_id, writing
from bench.load import Phase, Post, Saturation, beats, constant_rate, register_instances, touch
from bench.servers import Server, Stage, positions, settle, tidy, watching

SESSIONS = 1_000
EMIT_RATE = 200
WARM_SECONDS = 2
# Few enough for streams as long as those of a working day: the primary key's pages are full while
# a stream is young, and half empty once streams have grown past a page each.
DISK_STREAMS = 200

IDS = tuple(session_id(number) for number in range(SESSIONS))
AGENTS = tuple(instance_id(number) for number in range(SESSIONS))


def populate(server: Server, database_url: str) -> None:
    """A thousand live sessions that the writer has in memory, all else at rest."""
    open_sessions(database_url, SESSIONS)
    settle(database_url)
    tidy(database_url)
    touch(server, IDS)


def heartbeats(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Durable heartbeats/s against a server that stores nothing, and against the stock recorder.

    The three take turns under the same load, in both directions, so that a machine that grows
    slower or faster meanwhile does so for all; each ratio is the median of the rounds' ratios.
    """
    steps = 4 + 3 * effort.rounds
    with (
        stage.database() as database,
        stage.database() as stock_database,
        stage.holdfast(database) as holdfast,
        stage.bare() as bare,
    ):
        load = Saturation(stage.directory, beats(IDS), stage.postgres)
        watch("opening sessions", 0, steps)
        populate(holdfast, database)
        with stage.stock(stock_database, SESSIONS) as stock:
            servers = [bare, holdfast, stock]
            phases: dict[str, list[Phase]] = {server.name: [] for server in servers}
            touch(stock, IDS)
            tidy(stock_database)
            for step, server in enumerate(servers):
                watch(f"warming up {server.name}", 1 + step, steps)
                load.phase(server, WARM_SECONDS)
            behind = []
            step = 4
            for number in range(effort.rounds):
                for server in servers if number % 2 == 0 else reversed(servers):
                    # What one server left to be done must not slow the next.
                    left = settle(database)
                    if left:
                        behind.append(left)
                    watch(f"round {number + 1} of {effort.rounds}: {server.name}", step, steps)
                    phases[server.name].append(load.phase(server, effort.phase_seconds))
                    step += 1
            behind.append(settle(database))
    ours, theirs = phases["holdfast"], phases["bare"]
    yield Figure(
        "heartbeats_to_bare",
        _ratio(ours, theirs),
        {
            **_described("holdfast", ours),
            **_described("bare", theirs),
            "holdfast_cpu_to_bare": _middle(ours, "cpu_us") / _middle(theirs, "cpu_us"),
            "projector_behind_after_phase": max(behind),
        },
    )
    yield Figure(
        "heartbeats_to_stock",
        _ratio(ours, phases["stock"]),
        {
            "holdfast_per_second": _middle(ours, "per_second"),
            **_described("stock", phases["stock"]),
        },
    )


def _ratio(ours: list[Phase], theirs: list[Phase]) -> float:
    return median([a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True)])


def _middle(phases: list[Phase], name: str) -> float:
    return median([float(getattr(phase, name)) for phase in phases])


def _described(name: str, phases: list[Phase]) -> dict[str, Detail]:
    described: dict[str, Detail] = {
        f"{name}_per_second": _middle(phases, "per_second"),
        f"{name}_cpu_us_per_request": _middle(phases, "cpu_us"),
        f"{name}_postgres_cpu_us_per_request": _middle(phases, "postgres_cpu_us"),
        f"{name}_p99_ms_under_full_load": _middle(phases, "p99_ms"),
    }
    refused = sum(phase.refused for phase in phases)
    return {**described, f"{name}_refused": refused} if refused else described


def emit(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Latency of one durable event of an instance's work while 200 fall due each second."""
    with stage.database() as database, stage.holdfast(database) as server:
        watch("registering instances", 0, 2)
        with writing(database) as writer:
            for number in range(SESSIONS):
                register(writer, number, datetime.now(UTC))
        settle(database)
        tidy(database)
        touch(server, AGENTS, "instances")
        settle(database)
        watch(f"{EMIT_RATE}/s for {effort.emit_seconds} s", 1, 2)
        with constant_rate(server, emissions(AGENTS), EMIT_RATE, effort.emit_seconds) as load:
            latencies = load.finish().latencies_ms
    yield Figure(
        "event_emit_p99",
        percentile(latencies, 99),
        {
            "p50_ms": percentile(latencies, 50),
            "p95_ms": percentile(latencies, 95),
            "p99.9_ms": percentile(latencies, 99.9),
            "max_ms": max(latencies),
            "mean_ms": statistics.fmean(latencies),
            "requests": len(latencies),
        },
    )


def emissions(ids: Sequence[str]) -> list[Post]:
    """An event of each instance's work, of several types."""
    work = cycle(TURN)
    return [
        (f"/api/instances/{each}/events", orjson.dumps({"event_type": t, "event_data": d}).decode())
        for each, (t, d) in zip(ids, work, strict=False)
    ]


def disk(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Bytes that one heartbeat takes, written by the service itself under full load.

    An instance's stream has a short name, a session's a long one: in the row and in the key.
    """
    with stage.database() as database, stage.holdfast(database) as server:
        ids = register_instances(server, DISK_STREAMS)
        yield _bytes_each(stage, server, database, effort, watch, "instance", ids)
    with stage.database() as database, stage.holdfast(database) as server:
        populate(server, database)
        yield _bytes_each(stage, server, database, effort, watch, "session", IDS[:DISK_STREAMS])


def _bytes_each(
    stage: Stage,
    server: Server,
    database: str,
    effort: Effort,
    watch: Watch,
    kind: str,
    ids: Sequence[str],
) -> Figure:
    load = Saturation(stage.directory, beats(ids, f"{kind}s"), stage.postgres)
    with watching(database) as connection:
        first = positions(connection).head
        before = _sizes(connection)
        written = 0
        while written < effort.heartbeats:
            watch(f"{kind} heartbeats", written, effort.heartbeats)
            load.phase(server, 2)
            written = positions(connection).head - first
        settle(database)
        after = _sizes(connection)
        written = positions(connection).head - first
        stored = _heartbeats_after(connection, first, f"{kind}_heartbeat")
    if stored != written:
        raise BenchError(f"{written} events, of which only {stored} are heartbeats")
    each = {name: (after[name] - before[name]) / stored for name in after}
    snapshots = each.pop("snapshots")
    return Figure(
        f"disk_per_{kind}_heartbeat",
        sum(each.values()),
        {
            **{f"{name}_bytes": value for name, value in each.items()},
            "snapshots_besides_bytes": snapshots,
            "heartbeats": stored,
            "of_each": stored // DISK_STREAMS,
        },
    )


# The parts add up to what pg_total_relation_size says.
_SIZES = """
    SELECT 'heap' AS part, pg_table_size('event_store') AS bytes
    UNION ALL SELECT indexrelid::regclass::text, pg_relation_size(indexrelid)
    FROM pg_index WHERE indrelid = 'event_store'::regclass
    UNION ALL SELECT 'snapshots', pg_total_relation_size('snapshots')
"""
_BEATS = "SELECT count(*) FROM event_store WHERE position > %s AND event_type = %s"


def _sizes(connection: psycopg.Connection) -> dict[str, int]:
    return dict(connection.execute(_SIZES).fetchall())


def _heartbeats_after(connection: psycopg.Connection, position: int, event_type: str) -> int:
    row = connection.execute(_BEATS, [position, event_type]).fetchone()
    assert row is not None
    return int(row[0])
