from __future__ import annotations

import uuid
from typing import Literal

import orjson
import pytest
from eventsourcing.domain import CanMutateAggregate

from application.eventstore.mapper import Mapper, NewRow, Origin, Recorded
from application.registry import EVENTS
from domain.aggregate import Event, Json
from domain.sessions.session_events import SessionHeartbeat, SessionUpdated
from tests.support.given import at, new_session, session_that_is
from tests.unit.test_event_contract import sample

REQUEST = str(uuid.UUID(int=1))


def origin(command: str = "session_update", **rest: object) -> Origin:
    return Origin(REQUEST, "key-1", command, **rest)  # type: ignore[arg-type]


def stored(row: NewRow, position: int = 1) -> Recorded:
    """The row as the store would give it back: through JSON, and with its place in the log."""
    through = orjson.loads(orjson.dumps([row["event_data"], row["metadata"]]))
    return Recorded(
        position,
        uuid.UUID(row["event_id"]),
        row["stream_id"],
        row["sequence_num"],
        row["event_type"],
        row["timestamp"],
        *through,
    )


def made(event_class: type[Event], **payload: object) -> Event:
    """The third event of ``stream-1``."""
    base: Json = {
        "originator_id": "stream-1",
        "originator_version": 3,
        "timestamp": at(7.125),
    }
    return event_class(**base, **payload)


def restored(mapper: Mapper, row: Recorded) -> Event:
    return mapper.event(*row[2:])


@pytest.mark.parametrize("event_class", EVENTS, ids=lambda cls: cls.event_type)
@pytest.mark.parametrize("filled", ["fully", "barely"])
def test_every_event_comes_back_as_it_was_stored(
    event_class: type[Event], filled: Literal["fully", "barely"]
) -> None:
    mapper = Mapper(EVENTS)
    event = made(event_class, **sample(event_class, optional=filled == "fully"))

    [row] = mapper.rows([event], origin())

    assert row["event_type"] == event_class.event_type
    assert (row["stream_id"], row["sequence_num"]) == ("stream-1", 3)
    assert restored(mapper, stored(row)) == event


def test_what_was_not_said_is_not_stored() -> None:
    session = new_session()

    [row] = Mapper(EVENTS).rows(session.collect_events(), origin())

    assert row["event_data"] == {"project_id": "apollo", "machine_id": "m1"}


def test_an_event_says_which_request_made_it_and_who_sent_it() -> None:
    session = new_session()

    [row] = Mapper(EVENTS).rows(
        session.collect_events(),
        origin("session_create", command_id="once", tags={"team": "red", "actor": "liar"}),
    )

    assert row["metadata"] == {
        "team": "red",
        "request_id": REQUEST,
        "actor": "key-1",
        "command": "session_create",
        "command_id": "once",
    }
    assert stored(row).full_metadata() == row["metadata"]


def test_a_heartbeat_is_stored_without_what_can_be_told_from_the_rest() -> None:
    session = new_session()
    session.collect_events()
    session.beat(at(1))

    [row] = Mapper(EVENTS).rows(session.collect_events(), origin("session_heartbeat"))

    assert row["event_id"] == REQUEST
    assert row["event_data"] == {}
    assert row["metadata"] == {"actor": "key-1"}
    assert stored(row).full_metadata() == {
        "request_id": REQUEST,
        "command": "session_heartbeat",
        "actor": "key-1",
    }


def test_only_a_heartbeat_of_its_own_command_is_stored_compactly() -> None:
    session = session_that_is("stalled")
    session.collect_events()
    session.beat(at(1))
    mapper = Mapper(EVENTS)
    events = session.collect_events()

    revived, beat = mapper.rows(events, origin("session_heartbeat"))
    assert revived["metadata"]["request_id"] == REQUEST
    assert revived["event_id"] != beat["event_id"] == REQUEST

    _, from_elsewhere = mapper.rows(events, origin("heartbeats_ingest"))
    assert from_elsewhere["metadata"] == {
        "request_id": REQUEST,
        "actor": "key-1",
        "command": "heartbeats_ingest",
    }


def test_one_request_gives_its_id_to_one_event_only() -> None:
    session = new_session()
    session.collect_events()
    session.beat(at(1))
    session.beat(at(2))

    first, second = Mapper(EVENTS).rows(session.collect_events(), origin("session_heartbeat"))

    assert first["event_id"] == REQUEST != second["event_id"]
    assert second["metadata"]["request_id"] == REQUEST


def test_a_compact_event_keeps_its_callers_tags_and_key() -> None:
    session = new_session()
    session.collect_events()
    session.beat(at(1))

    [row] = Mapper(EVENTS).rows(
        session.collect_events(), origin("session_heartbeat", command_id="k", tags={"a": 1})
    )

    assert row["metadata"] == {"a": 1, "actor": "key-1", "command_id": "k"}


class Measured(Event):
    """In its third shape: once it had feet, then a height in centimetres and no unit."""

    event_type = "measured"
    class_version = 3
    metres: float
    unit: str = "m"

    def apply(self, aggregate: CanMutateAggregate[str]) -> None:
        raise NotImplementedError

    @staticmethod
    def upcast_v1_v2(state: Json) -> None:
        state["centimetres"] = state.pop("feet") * 30

    @staticmethod
    def upcast_v2_v3(state: Json) -> None:
        state["metres"] = state.pop("centimetres") / 100


@pytest.mark.parametrize(
    ("data", "metadata"),
    [
        ({"feet": 10}, {}),
        ({"centimetres": 300}, {"class_version": 2}),
        ({"metres": 3.0}, {"class_version": 3}),
    ],
    ids=["v1", "v2", "v3"],
)
def test_an_old_shape_is_brought_up_to_date_on_reading(data: Json, metadata: Json) -> None:
    kept = dict(data)

    event = Mapper([Measured]).event("s-1", 1, "measured", at(0), data, metadata)

    assert isinstance(event, Measured)
    assert (event.metres, event.unit) == (3.0, "m")
    assert data == kept


def test_a_new_shape_says_which_one_it_is() -> None:
    measured = made(Measured, metres=1.5)

    [row] = Mapper([Measured]).rows([measured], origin())

    assert row["metadata"]["class_version"] == 3
    assert restored(Mapper([Measured]), stored(row)) == measured


def test_a_first_shape_says_nothing() -> None:
    [row] = Mapper(EVENTS).rows(new_session().collect_events(), origin())

    assert "class_version" not in row["metadata"]


def test_an_event_is_known_by_its_name_and_not_by_its_class() -> None:
    class Renamed(SessionUpdated):
        pass

    event = Mapper([Renamed]).event("session-1", 1, "session_updated", at(0), {}, {})

    assert type(event) is Renamed


def test_a_name_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError):
        Mapper([SessionHeartbeat]).event("session-1", 1, "session_moved", at(0), {}, {})


def test_compact_events_are_heartbeats() -> None:
    compact = {cls.event_type for cls in EVENTS if cls.compact}

    assert compact == {"session_heartbeat", "machine_heartbeat", "instance_heartbeat"}
