"""A short log and a very long one, each with a service on it, for the same questions.

Both have the same instances and sessions, of which the questions are asked. One has besides them a
past of millions of events (:mod:`bench.past`), and its instances have beaten for hours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from bench import past
from bench.agents import instance_id, record, register, turns
from bench.asking import HISTORY, SHORT_STREAM, SHORT_STREAMS
from bench.bulk import PATH as BULK
from bench.figures import BenchError, Watch
from bench.history import open_session, writing
from bench.load import Client, bulk
from bench.servers import Server, Stage, positions, tidy, watching

# Together ten thousand events.
INSTANCES = 1_000
SESSIONS = 200
LONG_STREAM = 2_000
FEW_EVENTS = 2
# What the instances of the long log have lived through besides: most have snapshots.
BEATS_BEFORE = 200
STUCK_SECONDS = 60


class Side(NamedTuple):
    """One of the two stores, and the service on it."""

    name: str
    database: str
    server: Server


@contextmanager
def served(
    stage: Stage, events: int, watch: Watch
) -> Iterator[tuple[Sequence[Side], Mapping[str, int]]]:
    """The short log and the long one, freshly served, and how many events they have."""
    with stage.database() as short, stage.database() as long:
        with stage.holdfast(short) as server:
            _populate(server, short, watch)
        with stage.holdfast(long) as server:
            _live_long(server, long, events, watch)
        databases = (("short", short), ("long", long))
        sizes = {f"events_{name}": _tidied(database) for name, database in databases}
        with ExitStack() as stack:
            yield (
                [
                    Side(name, database, stack.enter_context(stage.holdfast(database)))
                    for name, database in databases
                ],
                sizes,
            )


def _populate(server: Server, database: str, watch: Watch) -> None:
    """What both have: instances, one with many events and fifty with a hundred, and sessions."""
    watch("writing what both stores have", 0, 1)
    began = datetime.now(UTC) - HISTORY
    with writing(database) as writer:
        for number in range(SESSIONS):
            open_session(writer, number)
        for number in range(INSTANCES):
            length = LONG_STREAM if number == 0 else FEW_EVENTS
            if 0 < number <= SHORT_STREAMS:
                length = SHORT_STREAM
            agent = register(writer, number, began)
            work, step = turns(), HISTORY / length
            record(writer, agent, [(began + n * step, *next(work)) for n in range(1, length)])
    # Whoever is alive has beaten just now.
    _beat(server, everyone(), 1, watch)
    catch_up(database, watch)


def _live_long(server: Server, database: str, events: int, watch: Watch) -> None:
    with watching(database) as connection:
        past.fill(connection, events, watch)
    catch_up(database, watch)
    _populate(server, database, watch)
    # Not those whose events are read: they have the same ones in both stores.
    _beat(
        server, [instance_id(n) for n in range(SHORT_STREAMS + 1, INSTANCES)], BEATS_BEFORE, watch
    )
    catch_up(database, watch)
    with watching(database) as connection:
        watch("checking the log", 0, 1)
        past.check(connection)


def everyone() -> list[str]:
    """The ids of the instances that both have."""
    return [instance_id(number) for number in range(INSTANCES)]


def _beat(server: Server, ids: Sequence[str], times: int, watch: Watch) -> None:
    client = Client(server)
    for number in range(times):
        watch("beating", number, times)
        accepted = client.post(BULK, bulk(ids))["accepted"]
        if accepted != len(ids):
            raise BenchError(f"{accepted} of {len(ids)} beats were accepted")


def catch_up(database: str, watch: Watch) -> None:
    """Wait for the projector, however long it takes while it gets on."""
    with watching(database) as connection:
        last, since = -1, time.monotonic()
        while (now := positions(connection)).projected < now.head:
            watch("projecting", now.projected, now.head)
            if now.projected > last:
                last, since = now.projected, time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                raise BenchError("the read models do not catch up")
            time.sleep(0.2)


def _tidied(database: str) -> int:
    """Put a store at rest; how many events it has."""
    tidy(database)
    with watching(database) as connection:
        connection.execute("CHECKPOINT")
        return positions(connection).head
