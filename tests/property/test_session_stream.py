"""Whatever is done to a session, its events alone tell everything: state, replay, read models."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from application.eventstore.mapper import Mapper, Origin, Recorded
from application.registry import EVENTS
from application.session_view import task_view, view
from domain.aggregate import Event, Json
from domain.errors import HoldfastError
from domain.liveness import ALWAYS
from domain.sessions.session import SESSION_STATUSES, Session
from domain.sessions.task import TASK_STATUSES
from projections.kernel.readmodel import Row
from projections.sessions import Sessions, session_reply
from projections.tasks import Tasks, task_reply
from tests.support.folding import Folded, as_recorded
from tests.support.given import START, THRESHOLD_MS

E = TypeVar("E", bound=Event)

KEY = "00000000-0000-0000-0000-000000000001"
PLACE = "@place/apollo/m1/"

names = st.sampled_from(["t1", "t2", "t3", "t4"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)
metadata = st.none() | st.dictionaries(
    st.sampled_from(["a", "b", "archived", "error_message", "recovery"]), values, max_size=3
)
seconds = st.sampled_from([0, 0.000001, 1, 59.5, 180, 180.001, 400])
# The service asks for a reason where one is needed; here any text will do.
reasons = st.text(min_size=1, max_size=5)


class Watched(Session):
    """A session that keeps what it was after each of its events."""

    history: list[Json]

    def record(self, event_class: type[E], at: datetime, **payload: Any) -> E:
        event = super().record(event_class, at, **payload)
        # As JSON, so that nothing that changes later can change it.
        self.history.append(self.state())
        return event


class SessionStream(RuleBasedStateMachine):
    """Any verbs in any order, as the use cases call them."""

    tasks = Bundle("tasks")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.session = Watched(id=Session.stream_id(KEY))
        self.session.history = []
        self.log: list[Recorded] = []
        self.mapper = Mapper(EVENTS)
        self.sessions, self.task_rows = Folded(Sessions()), Folded(Tasks())

    @initialize(
        given=metadata,
        slot=st.none() | st.integers(0, 3),
        threshold=st.none() | st.just(30_000),
        predecessor=st.none() | st.just("s0"),
    )
    def open(
        self, given: Json | None, slot: int | None, threshold: int | None, predecessor: str | None
    ) -> None:
        self.session.open(
            self.now,
            "apollo",
            "m1",
            docker_slot=slot,
            metadata=given,
            stall_threshold_ms=threshold,
            recovered_from=predecessor,
        )
        self.session.acquire(self.now, PLACE, 1)
        self._store("session_create")

    # What goes by, and what is done

    @rule(gone=seconds)
    def time_passes(self, gone: float) -> None:
        self.now += timedelta(seconds=gone)

    @rule(task=st.none() | names, given=metadata)
    def beat(self, task: str | None, given: Json | None) -> None:
        self._do(lambda: self.session.beat(self.now, task, given), "session_heartbeat")

    @rule(task=st.none() | st.just("") | names, given=metadata)
    def update(self, task: str | None, given: Json | None) -> None:
        self._do(lambda: self.session.update(self.now, task, given))

    @rule(status=st.sampled_from(SESSION_STATUSES))
    def change_status(self, status: Any) -> None:
        self._do(lambda: self.session.change_status(self.now, status))

    @rule(reason=reasons, given=metadata)
    def fail(self, reason: str, given: Json | None) -> None:
        self._do(lambda: self.session.fail(self.now, reason, given))

    @rule()
    def mark_stalled(self) -> None:
        self._do(lambda: self.session.mark_stalled(self.now))

    @rule()
    def sweep(self) -> None:
        self._do(lambda: self.session.note_overdue(self.now, THRESHOLD_MS))

    @rule()
    def archive(self) -> None:
        self._do(lambda: self.session.archive(self.now))

    @rule(clear=st.booleans())
    def prepare_recovery(self, clear: bool) -> None:
        self._do(lambda: self.session.prepare_recovery(self.now, clear, THRESHOLD_MS))

    @rule(successor=st.sampled_from(["s2", "s3"]))
    def recover(self, successor: str) -> None:
        def verbs() -> None:
            self.session.require_not_recovered()
            self.session.require_recoverable(self.now, THRESHOLD_MS)
            self.session.recover(self.now, successor, "m2")
            if PLACE in self.session.held:
                self.session.lose(self.now, PLACE, successor)

        self._do(verbs)

    @rule(sure=st.integers(0, 9))
    def delete(self, sure: int) -> None:
        def verbs() -> None:
            self.session.require_known()
            for resource in list(self.session.held):
                self.session.give_up(self.now, resource)
            self.session.delete(self.now)

        # Seldom: not much can happen afterwards.
        if sure == 9:
            self._do(verbs)

    @rule(item=st.sampled_from(["item-1", "item-2"]), fence=st.integers(1, 9))
    def acquire(self, item: str, fence: int) -> None:
        def verbs() -> None:
            self.session.require_writable()
            self.session.acquire(self.now, item, fence)

        self._do(verbs)

    @rule(resource=st.sampled_from(["item-1", "item-2", PLACE]), lost=st.booleans())
    def let_go(self, resource: str, lost: bool) -> None:
        def verbs() -> None:
            if resource not in self.session.held:
                return
            if lost:
                self.session.lose(self.now, resource, "s9")
            else:
                self.session.give_up(self.now, resource)

        self._do(verbs)

    @rule(target=tasks, name=st.text(min_size=1, max_size=3), given=metadata)
    def add_task(self, name: str, given: Json | None) -> Any:
        task_id = f"task-{len(self.log)}"
        done = self._do(lambda: self.session.add_task(self.now, task_id, name, "7", given))
        return task_id if done else multiple()

    @rule(target=tasks, origin=tasks)
    def carry_over(self, origin: str) -> Any:
        def verbs() -> None:
            self.session.require_writable()
            self.session.carry_over(self.now, task_id, self.session.require_task(origin))

        task_id = f"task-{len(self.log)}"
        return task_id if self._do(verbs) else multiple()

    @rule(
        task=tasks,
        status=st.none() | st.sampled_from(TASK_STATUSES),
        reason=st.none() | reasons,
        given=metadata,
    )
    def update_task(self, task: str, status: Any, reason: str | None, given: Json | None) -> None:
        self._do(lambda: self.session.update_task(self.now, task, status, reason, given))

    @rule(task=tasks)
    def delete_task(self, task: str) -> None:
        self._do(lambda: self.session.delete_task(self.now, task))

    # What must hold

    @invariant()
    def the_read_models_agree(self) -> None:
        if not self.log:
            return
        if self.session.is_deleted:
            assert self.sessions.rows == {}
            assert self.task_rows.rows == {}
            return
        row = self.sessions.rows[KEY]
        for now in (self.now, self.now + timedelta(seconds=200)):
            shown = session_reply(
                {**row, "status_now": _status_now(row, now), "unknown_since": None}
            )
            assert shown == view(self.session, now, THRESHOLD_MS, ALWAYS)
        assert row["held"] == self.session.held
        assert row["released_items"] == self.session.released_items
        shown_tasks = {key: task_reply(row) for key, row in self.task_rows.rows.items()}
        assert shown_tasks == {
            task.task_id: task_view(self.session, task) for task in self.session.tasks.values()
        }

    @invariant()
    def the_evidence_is_of_the_right_kind(self) -> None:
        if not self.sessions.rows:
            return
        row = self.sessions.rows[KEY]
        beats = self.log[row["heartbeat_num"] - 1]
        assert beats.timestamp == row["last_heartbeat"]
        assert beats.event_type in ("session_created", "session_heartbeat", "session_activated")
        said = self.log[row["status_num"] - 1]
        assert said.event_type.startswith("session_")

    @invariant()
    def a_state_can_be_taken_and_put_back(self) -> None:
        state = self.session.state()

        restored = Session.from_state(orjson.loads(orjson.dumps(state)))

        assert restored.state() == state
        assert restored.version == self.session.version

    def teardown(self) -> None:
        """Replay to every point, from the beginning and from a snapshot one event before."""
        history = self.session.history
        assert len(history) == len(self.log)
        replayed = Session(id=self.session.id)
        for number, recorded in enumerate(self.log):
            event = self.mapper.event(*recorded[2:])
            replayed.mutate(event)
            assert replayed.state() == history[number]
            if number:
                resumed = Session.from_state(history[number - 1])
                resumed.mutate(event)
                assert resumed.state() == history[number]

    def _do(self, verbs: Callable[[], object], command: str = "command") -> bool:
        """Carry out what one command does; a refusal must leave everything as it was."""
        before = self.session.state()
        try:
            verbs()
        except HoldfastError:
            assert not self.session.pending
            assert self.session.state() == before
            return False
        self._store(command)
        return True

    def _store(self, command: str) -> None:
        origin = Origin(str(uuid.UUID(int=len(self.log))), "key-1", command)
        for row in self.mapper.rows(self.session.collect_events(), origin):
            recorded = as_recorded(row, len(self.log) + 1)
            assert recorded.full_metadata()["request_id"] == origin.request_id
            self.log.append(recorded)
            self.sessions.fold(recorded)
            if recorded.event_type == "task_created":
                # The read model takes a task's project from its session's row, as we do here.
                project = self.sessions.rows[KEY]["project_id"]
                data = {**recorded.event_data, "project_id": project}
                recorded = recorded._replace(event_data=data)
            self.task_rows.fold(recorded)


def _status_now(row: Row, now: datetime) -> str:
    """What the view ``sessions_now`` computes."""
    threshold = timedelta(milliseconds=row["stall_threshold_ms"] or THRESHOLD_MS)
    if row["status"] == "active" and row["last_heartbeat"] < now - threshold:
        return "stalled"
    return str(row["status"])


TestSessionStream = SessionStream.TestCase
TestSessionStream.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, print_blob=True
)
