"""The bars, and how each is measured. To add one: a row here, and a function that yields it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench import asking, bulk, crowd, growth, reading, writing
from bench.figures import Bar, Effort, Figure, Watch
from bench.servers import Stage

Run = Callable[[Stage, Effort, Watch], Iterator[Figure]]


class Measure(NamedTuple):
    """Something that is set up once and yields a figure for each of its bars."""

    name: str
    run: Run
    bars: tuple[Bar, ...]
    # Only when it is asked for: it takes as long as all others together.
    slow: bool = False


MEASURES: tuple[Measure, ...] = (
    Measure(
        "heartbeats",
        writing.heartbeats,
        (
            Bar(
                "heartbeats_to_bare",
                "durable heartbeats/s ÷ an endpoint that stores nothing",
                "≥",
                0.5,
            ),
            Bar(
                "heartbeats_to_stock",
                "durable heartbeats/s ÷ the stock eventsourcing recorder",
                "≥",
                10,
            ),
        ),
    ),
    Measure(
        "bulk",
        bulk.bulk_heartbeats,
        (
            Bar(
                "bulk_to_inserts",
                "heartbeats/s through /api/heartbeats ÷ raw batched INSERTs",
                "≥",
                0.5,
            ),
        ),
    ),
    Measure(
        "emit", writing.emit, (Bar("event_emit_p99", "emit at 200/s offered, p99", "<", 10, "ms"),)
    ),
    Measure(
        "instances",
        asking.instances,
        (
            Bar("instance_register_p95", "register an instance, p95", "<", 15, "ms"),
            Bar("instance_lookup_p95", "one instance, by id or part of it, p95", "<", 10, "ms"),
            Bar("instance_list_p95", "list of 100 instances, p95", "<", 20, "ms"),
        ),
    ),
    Measure(
        "events",
        asking.events,
        (
            Bar("last_events_p99", "an instance's last 100 events, p99", "<", 20, "ms"),
            Bar("replay_p99", "replay of 100 events, p99", "<", 20, "ms"),
            Bar("event_search_p99", "type and date range over 10,000 events, p99", "<", 50, "ms"),
        ),
    ),
    Measure(
        "replies",
        reading.replies,
        (
            Bar("session_create_p95", "create a session, p95", "<", 15, "ms"),
            Bar("session_list_p95", "list of 100 sessions, p95", "<", 20, "ms"),
            Bar("session_lookup_p95", "one session, p95", "<", 10, "ms"),
            Bar("session_health_p95", "session health over 10,000 sessions, p95", "<", 20, "ms"),
        ),
    ),
    Measure(
        "projector",
        reading.projector,
        (
            Bar("projector_rate", "projector, catching up", "≥", 20_000, "events/s"),
            Bar(
                "projection_lag_p99",
                "acknowledgement to read model at 1,000 events/s, p99",
                "<",
                50,
                "ms",
            ),
        ),
    ),
    Measure(
        "disk",
        writing.disk,
        (
            Bar(
                "disk_per_instance_heartbeat",
                "on disk per heartbeat of an instance, with indexes",
                "≤",
                300,
                "bytes",
            ),
            Bar(
                "disk_per_session_heartbeat",
                "on disk per heartbeat of a session, with indexes",
                "≤",
                300,
                "bytes",
            ),
        ),
    ),
    Measure(
        "memory",
        crowd.memory,
        (Bar("memory_mib", "resident memory with 100,000 live instances", "≤", 512, "MiB"),),
    ),
    Measure(
        "sweep",
        crowd.sweeps,
        (
            Bar(
                "instance_sweep_seconds",
                "sweep over 100,000 instances, 1,000 of them stale",
                "<",
                5,
                "s",
            ),
            Bar("sweep_seconds", "sweep over 100,000 sessions, 1,000 of them stale", "<", 5, "s"),
        ),
    ),
    Measure("history", growth.history, growth.BARS, slow=True),
)
