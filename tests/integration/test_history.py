"""Replaying a long stream: right at every point, and near however long it is (S2, spec 16)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from application.engine.snapshots import SNAPSHOT_EVERY
from application.eventstore.mapper import Recorded
from application.eventstore.records import Criteria
from application.eventstore.store import EventStore
from application.history import History
from application.instances import BeatInstance, RegisterInstance
from application.work_events import EmitEvent
from domain.aggregate import Json
from domain.errors import InvalidInput, StreamNotFound
from domain.instances.instance import Instance
from tests.support.given import at
from tests.support.postgres import ask, ask_one, change
from tests.support.wiring import Service, context, service

EVENTS = 20_050
AT_ONCE = 50
KEY = "odin-PS-8f4a2b"
STREAM = Instance.stream_id(KEY)


class CountingStore(EventStore):
    """The real store; counts the events that are read from it."""

    read = 0

    def read_stream(self, *args: Any, **kwargs: Any) -> list[Recorded]:
        rows = super().read_stream(*args, **kwargs)
        self.read += len(rows)
        return rows


@pytest.fixture
def here(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


@pytest.fixture
def counting(here: Service) -> Iterator[CountingStore]:
    store = CountingStore.at(here.url, size=1)
    assert isinstance(store, CountingStore)
    yield store
    store.close()


def lived(here: Service, events: int) -> list[Json]:
    """An instance that did so much through the engine; its state after each, folded in full."""
    instance_id = str(here.do(RegisterInstance(project="odin", instance_type="PS"))["instance_id"])
    number = 1
    while number < events:
        commands: list[object] = []
        for _ in range(min(AT_ONCE, events - number)):
            number += 1
            commands.append(
                EmitEvent(
                    instance_id=instance_id,
                    event_type="epic_started",
                    event_data={"epic_id": f"epic-{number}"},
                )
                if number % 97 == 0
                else BeatInstance(instance_id=instance_id, context_percent=number % 101)
            )
        outcomes = here.loop.run(
            here.engine.submit_all([(command, context(command)) for command in commands])
        )
        assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    return states(here, Instance.stream_id(instance_id))


def states(here: Service, stream_id: str) -> list[Json]:
    """The state after each event, from event 1 and without any snapshot."""
    aggregate = Instance(id=stream_id)
    told = []
    for row in here.store.read_stream("default", stream_id):
        aggregate.mutate(here.mapper.event(*row[2:]))
        told.append(aggregate.state())
    return told


def test_a_stream_of_twenty_thousand_events_is_near_at_every_point(
    here: Service, counting: CountingStore
) -> None:
    """Replayed from the nearest snapshot, it is what a fold from event 1 makes of it."""
    folded = lived(here, EVENTS)
    assert len(folded) == EVENTS
    stream_id = folded[0]["id"]
    snapshots = {n for (n,) in ask(here.url, "SELECT sequence_num FROM snapshots")}
    assert len(snapshots) >= EVENTS // SNAPSHOT_EVERY - 1
    history = History(counting, here.mapper)
    edges = {
        1,
        2,
        EVENTS - 1,
        EVENTS,
        *(n + d for n in sorted(snapshots)[::20] for d in (-1, 0, 1)),
    }
    points = sorted({*edges, *range(1, EVENTS, 487)})

    for point in points:
        counting.read = 0
        assert history.state_at("default", stream_id, point).state() == folded[point - 1], point
        # A snapshot is kept at the end of a batch: one may lie as far as a batch beyond its due.
        assert counting.read <= SNAPSHOT_EVERY + AT_ONCE, point


def test_a_replay_of_the_end_reads_no_more_of_a_long_stream_than_of_a_short_one(
    here: Service, counting: CountingStore
) -> None:
    folded = lived(here, 1_000)
    counting.read = 0
    answer = History(counting, here.mapper).replay("default", folded[0]["id"])

    assert counting.read <= SNAPSHOT_EVERY + AT_ONCE + 1
    assert answer["events_replayed"] == 1_000
    assert answer["final_state"]["context_percent"] == folded[-1]["context_percent"]


def test_snapshots_of_another_shape_are_ignored(
    here: Service, counting: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state whose shape changed is folded anew, by readers and by the engine."""
    folded = lived(here, 500)
    stream_id = folded[0]["id"]
    broken = "UPDATE snapshots SET state = state || '{\"context_percent\": -1}'"
    assert change(here.url, broken) > 0
    history = History(counting, here.mapper)
    assert history.state_at("default", stream_id, 500).state() != folded[-1]
    monkeypatch.setattr(Instance, "state_version", Instance.state_version + 1)
    counting.read = 0

    assert history.state_at("default", stream_id, 500).state() == folded[-1]
    assert counting.read == 500
    with service(here.url, projecting=False) as fresh:
        beaten = fresh.do(BeatInstance(instance_id=stream_id.partition("-")[2]))
        assert beaten["context_percent"] == folded[-1]["context_percent"]
    kept = "SELECT count(*) FROM snapshots WHERE state_version = %s"
    assert ask_one(here.url, kept, Instance.state_version) <= 1


def given_history(here: Service) -> None:
    """Five events, a second apart."""
    instance = Instance(id=STREAM)
    instance.register(
        at(0), project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    for second in range(1, 5):
        instance.beat(at(second), context_percent=second)
    here.given(instance)


def test_a_stream_without_snapshots_is_replayed_from_its_beginning(
    here: Service, counting: CountingStore
) -> None:
    given_history(here)
    history = History(counting, here.mapper)

    for point, folded in enumerate(states(here, STREAM), 1):
        assert history.state_at("default", STREAM, point).state() == folded


def test_a_point_outside_of_the_stream_is_refused(here: Service) -> None:
    given_history(here)
    history = History(here.store, here.mapper)

    for point in (0, -1, 6):
        with pytest.raises(InvalidInput) as refusal:
            history.replay("default", STREAM, point)
        assert [error["field"] for error in refusal.value.errors] == ["to_sequence_num"]
        with pytest.raises(InvalidInput):
            history.replay("default", STREAM, 5, diff_from=point)


def test_a_stream_that_is_not_there_has_no_history(here: Service) -> None:
    given_history(here)
    history = History(here.store, here.mapper)

    for namespace, stream_id in [
        ("default", "instance-odin-PS-000000"),
        ("default", "nonsense"),
        ("team-b", STREAM),
    ]:
        with pytest.raises(StreamNotFound):
            history.replay(namespace, stream_id)
        with pytest.raises(StreamNotFound):
            history.find(namespace, stream_id, Criteria(), 10, 0)
    assert history.after("team-b", 0, 100, 10) == ([], False)


def test_a_page_of_a_stream_knows_how_many_there_are(here: Service) -> None:
    given_history(here)
    history = History(here.store, here.mapper)
    found = history.find("default", STREAM, Criteria(start=at(1), end=at(3)), 2, 1)

    assert [event.sequence_num for event in found.events] == [3, 4]
    assert found.total_count == 3
    found = history.find("default", STREAM, Criteria(newest_first=True), 2, 0)
    assert [event.sequence_num for event in found.events] == [5, 4]
    assert found.total_count == 5
