"""Bulk heartbeats against what Postgres takes from a program that only inserts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import psycopg
from psycopg.types.json import Jsonb

from application.eventstore.migrate import migrate
from bench.agents import instance_id, register
from bench.figures import BenchError, Effort, Figure, Watch, median
from bench.history import ACTOR, NAMESPACE, writing
from bench.load import Client, Phase, Saturation, bulk
from bench.servers import Server, Stage, positions, settle, tidy, watching

PATH = "/api/heartbeats"
AT_ONCE = 1_000
# The service parses one request while it writes another.
CONNECTIONS = 4
WARM_SECONDS = 2

IDS = tuple(instance_id(number) for number in range(AT_ONCE))

_INSERT = """
    INSERT INTO event_store (position, sequence_num, "timestamp", event_id, namespace, stream_id,
                             event_type, event_data, metadata)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class Inserts:
    """One connection that inserts rows as heartbeats leave them, a thousand in a transaction.

    By psycopg's own batches (``executemany``, which sends them in a pipeline): of the statements
    that take values one by one the fastest. The rows are made before the clock runs.
    """

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._written = 0
        # Nothing is proved of the rows: their numbers are not compared with the stream's last.
        connection.execute("SET holdfast.appending = 'yes'")

    def per_second(self, seconds: float) -> float:
        """Rows per second while it inserts for so long."""
        before, taken = self._written, 0.0
        while taken < seconds:
            rows = self._rows()
            started = time.perf_counter()
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(_INSERT, rows)
            taken += time.perf_counter() - started
        return (self._written - before) / taken

    def _rows(self) -> Sequence[Sequence[object]]:
        now = datetime.now(UTC)
        turn = self._written // AT_ONCE + 1
        rows = [
            (
                self._written + number + 1,
                turn,
                now,
                uuid4(),
                NAMESPACE,
                f"instance-{each}",
                "instance_heartbeat",
                Jsonb({}),
                Jsonb({"actor": ACTOR, "n": number}),
            )
            for number, each in enumerate(IDS)
        ]
        self._written += AT_ONCE
        return rows


def bulk_heartbeats(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Beats a second through ``/api/heartbeats`` against raw inserts into the same table.

    The two take turns, in both directions; the figure is the median of the rounds' ratios.
    """
    steps = 2 + 2 * effort.rounds
    with (
        stage.database() as database,
        stage.database() as raw_database,
        stage.holdfast(database) as server,
    ):
        watch("registering instances", 0, steps)
        migrate(raw_database)
        with writing(database) as writer:
            for number in range(AT_ONCE):
                register(writer, number, datetime.now(UTC))
        settle(database)
        tidy(database)
        beats = bulk(IDS)
        accepted = Client(server).post(PATH, beats)["accepted"]
        if accepted != AT_ONCE:
            raise BenchError(f"{accepted} of {AT_ONCE} beats were accepted")
        load = Saturation(
            stage.directory, [(PATH, orjson.dumps(beats).decode())], stage.postgres, CONNECTIONS
        )
        with watching(raw_database) as connection:
            inserts = Inserts(connection)
            watch("warming up", 1, steps)
            load.phase(server, WARM_SECONDS)
            inserts.per_second(WARM_SECONDS)
            ours: list[Phase] = []
            raw: list[float] = []
            for number in range(effort.rounds):
                for turn in range(2):
                    settle(database)
                    if (number + turn) % 2 == 0:
                        watch(f"round {number + 1}: service", 2 + 2 * number + turn, steps)
                        ours.append(_phase(load, server, database, effort.phase_seconds))
                    else:
                        watch(f"round {number + 1}: inserts", 2 + 2 * number + turn, steps)
                        raw.append(inserts.per_second(effort.phase_seconds))
    per_second = [phase.per_second * AT_ONCE for phase in ours]
    yield Figure(
        "bulk_to_inserts",
        median([a / b for a, b in zip(per_second, raw, strict=True)]),
        {
            "holdfast_per_second": median(per_second),
            "inserts_per_second": median(raw),
            "holdfast_cpu_us_per_beat": median([p.cpu_us for p in ours]) / AT_ONCE,
            "postgres_cpu_us_per_beat": median([p.postgres_cpu_us for p in ours]) / AT_ONCE,
            "request_p99_ms_under_full_load": median([p.p99_ms for p in ours]),
        },
    )


def _phase(load: Saturation, server: Server, database: str, seconds: int) -> Phase:
    """One phase; raises :class:`BenchError` unless every beat of it was stored."""
    with watching(database) as connection:
        before = positions(connection).head
        phase = load.phase(server, seconds)
        stored = positions(connection).head - before
    if stored < phase.per_second * seconds * AT_ONCE * 0.95:
        raise BenchError(f"only {stored} beats were stored")
    return phase
