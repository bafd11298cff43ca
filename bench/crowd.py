"""Measures with very many instances: memory, and the sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psutil

from bench.agents import SAID, TURN, instance_id, record, register
from bench.bulk import PATH
from bench.figures import BenchError, Effort, Figure, Watch
from bench.history import Writer, open_session, writing
from bench.load import Client, bulk
from bench.servers import Server, Stage, settle, tidy

MIB = 2**20
# Beats that say so much: a thousand of them would be more than a body may have.
BEATS_AT_ONCE = 500
# Longer than it takes to write the history: what is fresh stays fresh until the sweep.
STALE_SECONDS = 1_800
SILENT_FOR = timedelta(hours=2)


def memory(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """What the service's process has resident once it serves all of very many instances.

    Each has recorded work of several types, and beats twice through the service with all that
    an agent may say of itself, so that the writer has it in memory as it would in use.
    """
    count = effort.swept
    with stage.database() as database, stage.holdfast(database) as server:
        at_first = _resident(server)
        with writing(database) as writer:
            for number in range(count):
                if number % 1_000 == 0:
                    watch("registering instances", number, 4 * count)
                now = datetime.now(UTC)
                agent = register(writer, number, now)
                record(writer, agent, [(now, *work) for work in TURN])
        settle(database)
        tidy(database)
        highest = 0
        client = Client(server)
        for number in range(0, 2 * count, BEATS_AT_ONCE):
            watch("beating", 2 * count + number, 4 * count)
            ids = [instance_id(n % count) for n in range(number, number + BEATS_AT_ONCE)]
            accepted = client.post(PATH, bulk(ids, SAID))["accepted"]
            if accepted != BEATS_AT_ONCE:
                raise BenchError(f"{accepted} of {BEATS_AT_ONCE} beats were accepted")
            highest = max(highest, _resident(server))
        settle(database)
        active = client.get("/api/instances?limit=1")["active_count"]
        at_last = _resident(server)
    if active != count:
        raise BenchError(f"{active} instances are active where there are {count}")
    yield Figure(
        "memory_mib",
        max(highest, at_last) / MIB,
        {
            "at_rest_afterwards_mib": at_last / MIB,
            "after_start_mib": at_first / MIB,
            "bytes_each": (at_last - at_first) / count,
            "instances": count,
        },
    )


def _resident(server: Server) -> int:
    """Bytes of the server's process and those that it has started."""
    family = [server.process, *server.process.children(recursive=True)]
    return sum(_resident_alone(process) for process in family)


def _resident_alone(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


class Kind(NamedTuple):
    """What a sweep looks for: its threshold, how one comes about, and where the reply counts it."""

    metric: str
    plural: str
    counted: str
    threshold: Mapping[str, str]
    make: Callable[[Writer, int, datetime], object]


KINDS = (
    Kind(
        "instance_sweep_seconds",
        "instances",
        "instances_stale",
        {"INSTANCE_STALE_SECONDS": str(STALE_SECONDS)},
        register,
    ),
    Kind(
        "sweep_seconds",
        "sessions",
        "stalled",
        {"STALL_THRESHOLD_MS": str(STALE_SECONDS * 1000)},
        open_session,
    ),
)


def sweeps(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Recording who has fallen silent: of very many instances, then of as many sessions."""
    for kind in KINDS:
        yield _sweep(stage, effort, watch, kind)


def _sweep(stage: Stage, effort: Effort, watch: Watch, kind: Kind) -> Figure:
    thresholds = {**kind.threshold, "CLAIM_STALE_SECONDS": str(STALE_SECONDS * 2)}
    with stage.database() as database, stage.holdfast(database, **thresholds) as server:
        now = datetime.now(UTC)
        every = effort.swept // effort.stale
        with writing(database) as writer:
            for number in range(effort.swept):
                if number % 1_000 == 0:
                    watch(f"writing {kind.plural}", number, effort.swept)
                kind.make(writer, number, now - SILENT_FOR if number % every == 0 else now)
        watch("catching up", effort.swept, effort.swept)
        settle(database)
        tidy(database)
        watch("sweeping", effort.swept, effort.swept)
        started = time.perf_counter()
        reply = Client(server).post("/api/sessions/detect-failures")
        taken = time.perf_counter() - started
    found = reply[kind.counted]
    if found != effort.stale:
        raise BenchError(f"{found} {kind.plural} were found silent, not {effort.stale}")
    return Figure(kind.metric, taken, {kind.plural: effort.swept, "stale": effort.stale})
