"""The crash test's checks can fail: each finds what was done to a history that was good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from application.eventstore.mapper import Recorded
from domain.aggregate import Json
from tests.crash import checks
from tests.crash.checks import CHECKS, Check
from tests.crash.history import History
from tests.crash.ledger import Entry, Outcome

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACE = "@place/apollo/m1/"


class Story:
    """A log and a ledger that grow together."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.entries: list[Entry] = []
        self._versions: dict[str, int] = {}

    def write(
        self,
        command: str,
        *events: tuple[str, str, Json],
        subject: int = 0,
        key: str | None = None,
    ) -> None:
        """One acknowledged request and its events, of which number ``subject`` is its effect."""
        request_id = str(uuid4())
        metadata = {"actor": "key-1", "command": command, "request_id": request_id}
        if key is not None:
            metadata["command_id"] = key
        for stream_id, event_type, data in events:
            version = self._versions.get(stream_id, 0) + 1
            self._versions[stream_id] = version
            self.events.append(
                Recorded(
                    position=len(self.events) + 1,
                    event_id=uuid4(),
                    stream_id=stream_id,
                    sequence_num=version,
                    event_type=event_type,
                    timestamp=NOON,
                    event_data=data,
                    metadata=metadata,
                )
            )
        stream_id, event_type, data = events[subject]
        self.entries.append(
            Entry(
                command=command,
                method="POST",
                path="/api/somewhere",
                outcome="acknowledged",
                status=200,
                key=key,
                request_id=request_id,
                position=len(self.events),
                stream=stream_id,
                effects=(event_type,),
                facts={name: value for name, value in data.items() if isinstance(value, str)},
            )
        )

    def open(self, session_id: str, fence: int) -> None:
        self.write(
            "session_create",
            (
                f"session-{session_id}",
                "session_created",
                {"project_id": "apollo", "machine_id": "m1"},
            ),
            (
                f"claim-{PLACE}",
                "claim_granted",
                {"holder_kind": "session", "holder_id": session_id},
            ),
            (f"session-{session_id}", "claim_acquired", {"resource": PLACE, "fence": fence}),
        )

    def fail(self, session_id: str) -> None:
        self.write(
            "session_mark_failed",
            (f"session-{session_id}", "session_failed", {"error_message": "out of memory"}),
            (f"claim-{PLACE}", "claim_released", {"holder_id": session_id}),
            (f"session-{session_id}", "claim_given_up", {"resource": PLACE}),
        )

    def beat(self, session_id: str, mark: str, key: str | None = None) -> None:
        data = {"metadata": {"mark": mark}}
        stream = f"session-{session_id}"
        self.write("session_heartbeat", (stream, "session_heartbeat", data), key=key)

    def history(self) -> History:
        tables = {"sessions": ['{"session_id": "s1"}', '{"session_id": "s2"}']}
        return History(
            entries=self.entries,
            events=self.events,
            head=len(self.events),
            live=tables,
            rebuilt=tables,
        )


@pytest.fixture
def good() -> History:
    story = Story()
    story.open("s1", fence=1)
    story.beat("s1", "mark-1")
    story.fail("s1")
    story.open("s2", fence=3)
    story.write("task_create", ("session-s2", "task_created", {"task_id": "t1"}))
    story.beat("s2", "mark-2", key="key-2")
    return story.history()


def found_by(history: History) -> set[Check]:
    """The checks that find something."""
    return {check for check in CHECKS if check(history)}


def with_events(history: History, events: Iterable[Recorded]) -> History:
    return replace(history, events=list(events))


def event_of(history: History, event_type: str) -> Recorded:
    return next(event for event in reversed(history.events) if event.event_type == event_type)


def without(events: Sequence[Recorded], event: Recorded) -> list[Recorded]:
    return [one for one in events if one is not event]


def refused(code: str, outcome: Outcome = "refused", **rest: object) -> Entry:
    entry = Entry(
        command="session_heartbeat",
        method="POST",
        path="/api/somewhere",
        outcome=outcome,
        code=code,
        request_id=str(uuid4()),
    )
    return replace(entry, **rest)  # type: ignore[arg-type]


def test_a_good_history_passes_every_check(good: History) -> None:
    assert found_by(good) == set()


def test_an_event_that_is_gone_is_missed(good: History) -> None:
    assert found_by(with_events(good, good.events[:-1])) == {
        checks.nothing_is_lost,
        checks.positions_have_no_gaps,
    }


def test_an_event_gone_without_a_trace_in_the_numbers_is_missed(good: History) -> None:
    history = replace(good, events=good.events[:-1], head=good.head - 1)

    assert found_by(history) == {checks.nothing_is_lost}


def test_another_requests_event_in_its_place_is_not_taken_for_it(good: History) -> None:
    last = good.events[-1]
    other = last._replace(metadata={**last.metadata, "request_id": str(uuid4())})

    assert checks.nothing_is_lost(with_events(good, [*good.events[:-1], other]))


def test_an_event_of_other_content_is_not_taken_for_it(good: History) -> None:
    task = event_of(good, "task_created")
    other = task._replace(event_data={"task_id": "t2"})
    events = [other if event is task else event for event in good.events]

    assert found_by(with_events(good, events)) == {checks.nothing_is_lost}


def test_an_acknowledged_position_beyond_the_end_of_the_log_is_found(good: History) -> None:
    beyond = replace(good.entries[0], effects=(), position=good.head + 1)

    assert found_by(replace(good, entries=[*good.entries[1:], beyond])) == {checks.nothing_is_lost}


def test_an_event_that_is_there_twice_is_found(good: History) -> None:
    last = good.events[-1]
    again = last._replace(position=last.position + 1, sequence_num=last.sequence_num + 1)
    history = replace(good, events=[*good.events, again], head=good.head + 1)

    assert checks.nothing_is_doubled in found_by(history)


def test_a_request_that_was_carried_out_twice_is_found(good: History) -> None:
    last = good.events[-1]
    again = last._replace(
        position=last.position + 1, sequence_num=last.sequence_num + 1, event_id=uuid4()
    )
    history = replace(good, events=[*good.events, again], head=good.head + 1)

    assert checks.nothing_is_doubled in found_by(history)


def test_a_request_that_was_appended_in_pieces_is_found(good: History) -> None:
    first = good.events[0]
    events = [*good.events, first._replace(position=good.head + 1, event_id=uuid4())]

    assert any("in pieces" in line for line in checks.nothing_is_doubled(with_events(good, events)))


@pytest.mark.parametrize("token", ["key", "mark"])
def test_a_key_or_a_mark_with_two_effects_is_found(good: History, token: str) -> None:
    last = good.events[-1]
    metadata = {**last.metadata, "request_id": str(uuid4())}
    if token == "mark":
        del metadata["command_id"]
    again = last._replace(
        position=last.position + 1,
        sequence_num=last.sequence_num + 1,
        event_id=uuid4(),
        event_data=last.event_data if token == "mark" else {},
        metadata=metadata,
    )
    history = replace(good, events=[*good.events, again], head=good.head + 1)

    assert found_by(history) == {checks.nothing_is_doubled}


def test_a_request_id_that_was_given_twice_is_found(good: History) -> None:
    assert found_by(replace(good, entries=[*good.entries, good.entries[0]])) == {
        checks.nothing_is_doubled
    }


def test_a_refused_write_that_is_there_is_found(good: History) -> None:
    entry = replace(good.entries[1], outcome="refused", code="conflict")

    assert found_by(replace(good, entries=[*good.entries, entry])) == {
        checks.nothing_refused_is_there
    }


def test_a_refused_key_that_has_an_effect_is_found(good: History) -> None:
    entry = refused("session_ended", key="key-2")

    assert found_by(replace(good, entries=[*good.entries, entry])) == {
        checks.nothing_refused_is_there
    }


def test_a_session_that_is_there_and_was_denied_is_found(good: History) -> None:
    entry = refused("session_not_found", stream="session-s2")

    assert found_by(replace(good, entries=[*good.entries, entry])) == {
        checks.nothing_there_is_denied
    }


def test_a_task_that_is_there_and_was_denied_is_found(good: History) -> None:
    entry = refused("task_not_found", stream="session-s2", facts={"task_id": "t1"})

    assert found_by(replace(good, entries=[*good.entries, entry])) == {
        checks.nothing_there_is_denied
    }


def test_a_stream_with_a_gap_is_found(good: History) -> None:
    *before, last = good.events
    history = with_events(good, [*before, last._replace(sequence_num=last.sequence_num + 1)])

    assert found_by(history) == {checks.every_stream_is_contiguous}


def test_a_stream_out_of_order_is_found(good: History) -> None:
    *before, task, beat = good.events
    swapped = [
        task._replace(sequence_num=beat.sequence_num),
        beat._replace(sequence_num=task.sequence_num),
    ]

    assert found_by(with_events(good, [*before, *swapped])) == {checks.every_stream_is_contiguous}


def test_a_log_with_a_gap_is_found(good: History) -> None:
    task = event_of(good, "task_created")

    assert checks.positions_have_no_gaps in found_by(with_events(good, without(good.events, task)))


def test_a_log_that_does_not_reach_its_head_is_found(good: History) -> None:
    assert found_by(replace(good, head=good.head + 1)) == {checks.positions_have_no_gaps}


@pytest.mark.parametrize("lost", ["claim_given_up", "claim_released", "claim_acquired"])
def test_a_claim_and_a_session_that_disagree_are_found(lost: str) -> None:
    story = Story()
    story.open("s1", fence=1)
    if lost != "claim_acquired":
        story.fail("s1")
    good = story.history()
    history = with_events(good, without(good.events, event_of(good, lost)))

    assert checks.everything_held_has_one_holder(history)


def test_a_work_item_whose_holder_does_not_know_of_it_is_found() -> None:
    story = Story()
    story.open("s1", fence=1)
    grant = {"holder_kind": "session", "holder_id": "s1"}
    story.write("claim_item", ("claim-item-7", "claim_granted", grant))

    assert found_by(story.history()) == {checks.everything_held_has_one_holder}


def test_a_holder_that_is_not_live_is_found() -> None:
    story = Story()
    story.open("s1", fence=1)
    story.write("session_mark_failed", ("session-s1", "session_failed", {}))

    assert found_by(story.history()) == {checks.everything_held_has_one_holder}


def test_two_sessions_at_work_in_one_place_are_found() -> None:
    story = Story()
    for session_id in ("s1", "s2"):
        data = {"project_id": "apollo", "machine_id": "m1", "docker_slot": 1}
        story.write("session_create", (f"session-{session_id}", "session_created", data))

    assert found_by(story.history()) == {checks.everything_held_has_one_holder}


@pytest.mark.parametrize("side", ["live", "rebuilt"])
def test_a_read_model_with_another_row_is_found(good: History, side: str) -> None:
    tables = {"sessions": [*good.live["sessions"], '{"session_id": "s3"}']}
    history = replace(good, **{side: tables})  # type: ignore[arg-type]

    assert found_by(history) == {checks.read_models_are_as_if_built_anew}


def test_a_read_model_that_is_missing_is_found(good: History) -> None:
    assert found_by(replace(good, live={})) == {checks.read_models_are_as_if_built_anew}


def test_an_event_that_was_set_aside_is_found(good: History) -> None:
    assert found_by(replace(good, set_aside=["event 7"])) == {checks.no_event_was_set_aside}


def test_an_internal_error_is_found(good: History) -> None:
    entry = refused("internal_error", outcome="broken")

    assert found_by(replace(good, entries=[*good.entries, entry])) == {checks.nothing_was_broken}


def test_a_process_that_ended_by_itself_is_found(good: History) -> None:
    assert found_by(replace(good, surprises=["exit code 1"])) == {checks.nothing_was_broken}


def test_no_check_breaks_whatever_event_is_missing(good: History) -> None:
    for event in good.events:
        assert found_by(with_events(good, without(good.events, event)))


def test_a_compact_heartbeat_is_known_by_its_id(good: History) -> None:
    *before, beat = good.events
    entry = replace(good.entries[-1], request_id=str(UUID(int=7)), key=None)
    compact = beat._replace(event_id=UUID(int=7), metadata={"actor": "key-1"})
    history = replace(good, events=[*before, compact], entries=[*good.entries[:-1], entry])

    assert found_by(history) == set()
