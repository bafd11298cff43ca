"""Measures of what agents and those who look at them ask for: instances, events, replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from bench.agents import instance_id, record, register, short_hash, turns
from bench.figures import BenchError, Effort, Figure, Watch, percentile
from bench.history import writing
from bench.load import Client
from bench.servers import Stage, settle, tidy

KNOWN_INSTANCES = 10_000
LONG_STREAM = 10_000
SHORT_STREAM = 100
SHORT_STREAMS = 50
HISTORY = timedelta(days=10)


class Question(NamedTuple):
    """A request that reads, by number: always the same one would be answered from caches."""

    bar: str
    path: Callable[[int], str]
    # Which lists the reply has and how long they are, for a reply that is wrong is fast.
    expected: tuple[str, int] | None = None


def id_or_part(number: int, known_instances: int) -> str:
    """The id of one of so many instances, or the hash in it, in turn."""
    known = number * 37 % known_instances
    return instance_id(known) if number % 2 else short_hash(known)


INSTANCES = (
    Question("instance_lookup_p95", lambda n: f"/api/instances/{id_or_part(n, KNOWN_INSTANCES)}"),
    Question("instance_list_p95", lambda _: "/api/instances?limit=100", ("instances", 100)),
)


def instances(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """What one client waits for who asks for one thing after the other, 10,000 instances known.

    Each read follows a registration at once, so it waits until the read models include that.
    """
    with stage.database() as database, stage.holdfast(database) as server:
        watch("registering instances", 0, 2 * effort.samples)
        with writing(database) as writer:
            for number in range(KNOWN_INSTANCES):
                register(writer, number, datetime.now(UTC))
        settle(database)
        tidy(database)
        client = Client(server)
        _check(client, INSTANCES)
        for number in range(20):
            _register(client)
            _ask(client, INSTANCES[number % len(INSTANCES)], number)
        registered: list[float] = []
        taken: dict[str, list[float]] = {question.bar: [] for question in INSTANCES}
        for number in range(effort.samples):
            watch("reads after a write", number, 2 * effort.samples)
            for question in INSTANCES:
                registered.append(_register(client))
                taken[question.bar].append(_ask(client, question, number))
        at_rest: dict[str, list[float]] = {question.bar: [] for question in INSTANCES}
        settle(database)
        for number in range(effort.samples):
            watch("reads at rest", effort.samples + number, 2 * effort.samples)
            for question in INSTANCES:
                at_rest[question.bar].append(_ask(client, question, number))
    yield _figure("instance_register_p95", 95, registered)
    for bar, latencies in taken.items():
        figure = _figure(bar, 95, latencies)
        without = {"p95_ms_without_writes": percentile(at_rest[bar], 95)}
        yield Figure(bar, figure.measured, {**figure.details, **without})


def _register(client: Client) -> float:
    wanted = {"project": "bench", "instance_type": "PS", "hostname": "machine-1"}
    return client.timed("POST", "/api/instances", wanted)


def a_day_of_tests(number: int) -> str:
    """Events of one type within a day of the ten: about one in sixty of the long stream's."""
    start = datetime.now(UTC) - HISTORY + timedelta(hours=number % 200)
    criteria = {
        "event_type": "test_passed",
        "start_date": start.isoformat(),
        "end_date": (start + timedelta(days=1)).isoformat(),
    }
    return f"/api/instances/{instance_id(0)}/events?{urlencode(criteria)}"


def short_stream(number: int) -> str:
    """One of the instances with a hundred events."""
    return instance_id(1 + number % SHORT_STREAMS)


EVENTS = (
    Question(
        "last_events_p99",
        lambda _: f"/api/instances/{instance_id(0)}/events?order=desc&limit=100",
        ("events", 100),
    ),
    Question("replay_p99", lambda n: f"/api/instances/{short_stream(n)}/replay"),
    Question("event_search_p99", a_day_of_tests, ("events", 100)),
)


def events(stage: Stage, effort: Effort, watch: Watch) -> Iterator[Figure]:
    """Reading what an instance did: one client, one request after the other."""
    steps = 2 * effort.samples
    with stage.database() as database, stage.holdfast(database) as server:
        watch("writing events", 0, steps)
        write_streams(database)
        settle(database)
        tidy(database)
        client = Client(server)
        _check(client, EVENTS)
        for number in range(20):
            for question in EVENTS:
                _ask(client, question, number)
        taken: dict[str, list[float]] = {question.bar: [] for question in EVENTS}
        for number in range(steps):
            watch("reading events", number, steps)
            for question in EVENTS:
                taken[question.bar].append(_ask(client, question, number))
    for bar, latencies in taken.items():
        yield _figure(bar, 99, latencies)


def write_streams(database: str) -> None:
    """One instance with 10,000 events of ten days, and fifty with a hundred each."""
    began = datetime.now(UTC) - HISTORY
    with writing(database) as writer:
        for number in range(1 + SHORT_STREAMS):
            length = SHORT_STREAM if number else LONG_STREAM
            step = HISTORY / length
            agent = register(writer, number, began)
            work = turns()
            record(writer, agent, [(began + n * step, *next(work)) for n in range(1, length)])


def _check(client: Client, questions: tuple[Question, ...]) -> None:
    for question in questions:
        if question.expected is None:
            continue
        name, length = question.expected
        found = len(client.get(question.path(0))[name])
        if found != length:
            raise BenchError(f"{question.path(0)} answers {found} {name} where there are {length}")


def _ask(client: Client, question: Question, number: int) -> float:
    return client.timed("GET", question.path(number))


def _figure(bar: str, percent: int, latencies: list[float]) -> Figure:
    others = {f"p{p}_ms": percentile(latencies, p) for p in (50, 95, 99) if p != percent}
    return Figure(bar, percentile(latencies, percent), {**others, "requests": len(latencies)})
