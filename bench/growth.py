"""Costs must not grow with history: the same questions to a short log and to a very long one.

Questions go to two services in turn: what they have, :mod:`bench.two_logs` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from uuid import uuid4

import orjson

from bench import two_logs
from bench.agents import instance_id
from bench.asking import SHORT_STREAMS, a_day_of_tests, id_or_part
from bench.bulk import CONNECTIONS as BULK_CONNECTIONS
from bench.bulk import PATH as BULK
from bench.figures import Bar, Effort, Figure, Watch, median, percentile, written
from bench.history import session_id
from bench.load import Client, Saturation, beats, bulk, constant_rate
from bench.servers import Stage
from bench.two_logs import INSTANCES, SESSIONS, Side
from bench.writing import EMIT_RATE, emissions

TOLERANCE = 1.2

Ask = tuple[str, str, dict[str, object] | None]


class Question(NamedTuple):
    """What is asked of both, and which percentile is told beside the median."""

    bar: str
    what: str
    percent: int
    ask: Callable[[int], Ask]


def _lookup(number: int) -> Ask:
    return "GET", f"/api/instances/{id_or_part(number, INSTANCES)}", None


def _search(number: int) -> Ask:
    return "GET", a_day_of_tests(number), None


def _open(number: int) -> Ask:
    place: dict[str, object] = {"project_id": "bench", "machine_id": f"machine-{uuid4().hex[:12]}"}
    return "POST", "/api/sessions", place


QUESTIONS = (
    Question(
        "history_register",
        "register an instance",
        95,
        lambda _: ("POST", "/api/instances", {"project": "bench", "instance_type": "PS"}),
    ),
    Question("history_lookup", "one instance", 95, _lookup),
    Question(
        "history_list",
        "list of 100 instances",
        95,
        lambda _: ("GET", "/api/instances?limit=100", None),
    ),
    Question("history_session_create", "create a session", 95, _open),
    Question(
        "history_session_lookup",
        "one session",
        95,
        lambda n: ("GET", f"/api/sessions/{session_id(n * 37 % SESSIONS)}", None),
    ),
    Question(
        "history_session_list",
        "list of 100 sessions",
        95,
        lambda _: ("GET", "/api/sessions?limit=100", None),
    ),
    Question(
        "history_session_health",
        "session health",
        95,
        lambda _: ("GET", "/api/sessions/health", None),
    ),
    Question(
        "history_last_events",
        "an instance's last 100 events",
        99,
        lambda _: ("GET", f"/api/instances/{instance_id(0)}/events?order=desc&limit=100", None),
    ),
    Question(
        "history_replay",
        "replay of 100 events",
        99,
        lambda n: ("GET", f"/api/instances/{instance_id(1 + n % SHORT_STREAMS)}/replay", None),
    ),
    Question("history_search", "type and date range over 2,000 events", 99, _search),
)
OTHERS = (
    ("history_heartbeats", "time per durable heartbeat, 64 connections"),
    ("history_bulk", "time per heartbeat through /api/heartbeats"),
    ("history_emit", "emit at 200/s offered"),
    ("history_cold", "first beat of an instance that is not in memory"),
)
BARS = tuple(
    Bar(name, f"long log ÷ short: {what}", "≤", TOLERANCE)
    for name, what in (*OTHERS, *((question.bar, question.what) for question in QUESTIONS))
)


def history(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """The figures of a log of ten thousand events beside those of one of millions."""
    with two_logs.served(stage, effort.history, watch) as (sides, sizes):
        for figure in _compared(stage, sides, effort, watch):
            yield Figure(figure.bar, figure.measured, {**figure.details, **sizes}, figure.shown)


def _compared(
    stage: Stage, sides: Sequence[Side], effort: Effort, watch: Watch
) -> Iterator[Figure]:
    yield _cold(sides, watch)
    yield from _asked(sides, effort, watch)
    yield _emitted(sides, effort, watch)
    ids = two_logs.everyone()
    single = Saturation(stage.directory, beats(ids, "instances"), stage.postgres)
    yield _saturated("history_heartbeats", single, 1, sides, effort, watch)
    many = [(BULK, orjson.dumps(bulk(ids)).decode())]
    load = Saturation(stage.directory, many, stage.postgres, BULK_CONNECTIONS)
    yield _saturated("history_bulk", load, len(ids), sides, effort, watch)


def _cold(sides: Sequence[Side], watch: Watch) -> Figure:
    clients = [Client(side.server) for side in sides]
    for client in clients:
        # Connections, prepared statements: not what is compared.
        for number in range(SHORT_STREAMS):
            client.timed("POST", f"/api/instances/{instance_id(1 + number)}/heartbeat", {})
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(SHORT_STREAMS + 1, INSTANCES):
        watch("first beats", number, INSTANCES)
        path = f"/api/instances/{instance_id(number)}/heartbeat"
        for turn in range(2):
            which = (number + turn) % 2
            taken[which].append(clients[which].timed("POST", path, {}))
    return _latency("history_cold", 95, taken)


def _asked(sides: Sequence[Side], effort: Effort, watch: Watch) -> Iterator[Figure]:
    clients = [Client(side.server) for side in sides]
    taken: dict[str, list[list[float]]] = {q.bar: [[], []] for q in QUESTIONS}
    warm_up = 20
    for number in range(-warm_up, 2 * effort.samples):
        watch("asking both", number + warm_up, 2 * effort.samples + warm_up)
        for question in QUESTIONS:
            for turn in range(2):
                which = (number + turn) % 2
                latency = clients[which].timed(*question.ask(number))
                if number >= 0:
                    taken[question.bar][which].append(latency)
    for question in QUESTIONS:
        yield _latency(question.bar, question.percent, taken[question.bar])


def _emitted(sides: Sequence[Side], effort: Effort, watch: Watch) -> Figure:
    taken: list[list[float]] = [[], []]
    seconds = max(2, effort.emit_seconds // 4)
    requests = emissions([instance_id(n) for n in range(SHORT_STREAMS + 1, INSTANCES)])
    for number in range(4):
        for turn in range(2):
            which = (number + turn) % 2
            watch(f"emitting {EMIT_RATE}/s, {sides[which].name}", 2 * number + turn, 8)
            with constant_rate(sides[which].server, requests, EMIT_RATE, seconds) as load:
                taken[which] += load.finish().latencies_ms
            two_logs.catch_up(sides[which].database, watch)
    return _latency("history_emit", 99, taken)


def _latency(bar: str, percent: int, taken: Sequence[Sequence[float]]) -> Figure:
    """The ratio of the medians: a tail differs by more than the bar between two equal runs."""
    short, long = (percentile(latencies, 50) for latencies in taken)
    tails = [percentile(latencies, percent) for latencies in taken]
    return Figure(
        bar,
        long / short,
        {
            f"short_p{percent}_ms": tails[0],
            f"long_p{percent}_ms": tails[1],
            "requests": len(taken[0]),
        },
        f"{written(long)} ÷ {written(short)} ms = {written(long / short)}",
    )


def _saturated(
    bar: str, load: Saturation, each: int, sides: Sequence[Side], effort: Effort, watch: Watch
) -> Figure:
    """The time that a beat takes when as many are sent as are answered."""
    rates: list[list[float]] = [[], []]
    for side in sides:
        load.phase(side.server, 2)
    for number in range(effort.rounds):
        for turn in range(2):
            which = (number + turn) % 2
            watch(f"full load, {sides[which].name}", 2 * number + turn, 2 * effort.rounds)
            phase = load.phase(sides[which].server, effort.phase_seconds)
            rates[which].append(phase.per_second * each)
            two_logs.catch_up(sides[which].database, watch)
    short, long = (median(rate) for rate in rates)
    ratio = median([a / b for a, b in zip(*rates, strict=True)])
    return Figure(
        bar,
        ratio,
        {"short_per_second": short, "long_per_second": long, "rounds": effort.rounds},
        f"{written(1e6 / long)} ÷ {written(1e6 / short)} µs = {written(ratio)}",
    )
