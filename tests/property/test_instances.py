"""Whatever agents do, and wherever: the hierarchy holds, every reader and every replay agree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.engine.engine import Engine
from application.engine.unit_of_work import Policy
from application.eventstore.mapper import Recorded
from application.eventstore.records import Criteria
from application.history import History
from application.instance_view import view
from application.instances import (
    BeatInstance,
    CloseInstance,
    NoteStale,
    RegisterInstance,
    SetParent,
)
from application.registry import HANDLERS
from application.resume import ResumeInstance
from application.work_events import EmitEvent
from domain.aggregate import Json
from domain.claims.claim import GLOBAL, Claim
from domain.errors import HoldfastError, InvalidInput
from domain.instances.hierarchy import MAY_BE_ROOT, PARENT_SCOPE, SCOPES, Scope
from domain.instances.instance import Instance
from domain.liveness import ALWAYS
from projections import instances, schema
from projections.kernel.reads import Page
from tests.support.given import at
from tests.support.postgres import ask
from tests.support.wiring import Done, Service, context, done, service

STALE = 120.0
NOBODY = "odin-PS-nobody"


# What agents do


class Step(NamedTuple):
    """A command that names instances by number, and the process that is to carry it out."""

    kind: str
    process: int
    who: int
    other: int | None
    what: Any


def steps(kind: str, what: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Steps of one kind. A ``who`` past the last instance is the first one again."""
    someone = st.integers(0, 9)
    return st.builds(Step, st.just(kind), st.integers(0, 1), someone, st.none() | someone, what)


epics = st.sampled_from(["e1", "e2"])
percents = st.sampled_from([0, 50, 89.9, 90, 100])
metrics = st.fixed_dictionaries(
    {},
    optional={
        "active_tasks": st.integers(0, 3),
        "queue_depth": st.integers(0, 3),
        "response_time_ms": st.sampled_from([0.5, 4_999, 5_000]),
        "error_rate": st.sampled_from([0, 0.24, 0.25, 1]),
    },
)
said = st.fixed_dictionaries(
    {},
    optional={
        "context_percent": percents,
        "current_epic": epics,
        "metrics": metrics,
        "activity": st.sampled_from(["working", "waiting_for_human", "idle"]),
        "git": st.fixed_dictionaries({"branch": st.just("main")}),
    },
)
work = st.one_of(
    st.tuples(
        st.sampled_from(["epic_started", "epic_completed", "epic_failed", "test_passed"]),
        st.fixed_dictionaries({"epic_id": epics}),
    ),
    st.tuples(
        st.just("context_window_updated"), st.fixed_dictionaries({"context_percent": percents})
    ),
    st.tuples(
        st.just("checkpoint_created"),
        st.fixed_dictionaries({"label": epics, "state": st.dictionaries(epics, percents)}),
    ),
    st.tuples(st.just("checkpoint_loaded"), st.just({"checkpoint_id": "c"})),
)
policies = st.none() | st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["never", "on_failure", "always"]),
        "max_restarts": st.integers(0, 2),
    }
)
step = st.one_of(
    steps("register", st.tuples(st.sampled_from(SCOPES), policies, percents)),
    steps("register", st.tuples(st.sampled_from(SCOPES), policies, percents)),
    steps("move", st.booleans()),
    steps("close", st.booleans()),
    steps("beat", said),
    steps("emit", work),
    steps("stale", st.none()),
    steps("resume", st.none()),
)
# Steps in one list are begun at once.
stories = st.lists(st.lists(step, min_size=1, max_size=3), min_size=3, max_size=15)
# Each begins with a tree: who they are, and whose children, by number.
TREE: Sequence[tuple[Scope, int | None]] = [
    ("global", None),
    ("project", 0),
    ("project", 0),
    ("orchestration", 1),
    ("orchestration", 1),
    ("orchestration", 2),
]


# Where they do it


@dataclass
class Story:
    """One namespace, in which two processes work; what was seen of its instances on the way."""

    processes: Sequence[Service]
    sweeper: Engine
    namespace: str
    ids: list[str] = field(default_factory=list)
    # What readers were shown of an instance when it was at a version.
    shown: dict[tuple[str, int], Json] = field(default_factory=dict)

    @property
    def here(self) -> Service:
        return self.processes[0]

    def plant(self) -> None:
        """The tree that every story begins with."""
        for number, (scope, parent) in enumerate(TREE):
            self.carry_out([Step("register", number % 2, 0, parent, (scope, None, 0))])
        assert len(self.ids) == len(TREE)

    def carry_out(self, together: Sequence[Step]) -> None:
        """Begin all, await all; remember who registered, and what came of each."""
        before = self.here.store.head(self.namespace)
        futures = [self._begin(one) for one in together]
        replies: list[Done] = []
        for one, future in zip(together, futures, strict=True):
            error = future.exception()
            assert error is None or isinstance(error, HoldfastError), error
            if error is None:
                replies.append(future.result())
                if one.kind == "register" or (one.kind == "resume" and replies[-1].status == 201):
                    self.ids.append(replies[-1]["instance_id"])
        if not replies:
            assert self.here.store.head(self.namespace) == before
        if len(together) == 1 and replies and together[0].kind in ("register", "move", "close"):
            self._agree(replies[0].value)

    def _begin(self, one: Step) -> Future[Done]:
        process = self.processes[one.process]
        who = self.ids[one.who % len(self.ids)] if self.ids else NOBODY
        other = (
            None
            if one.other is None
            else self.ids[one.other % len(self.ids)]
            if self.ids
            else NOBODY
        )
        match one.kind:
            case "register":
                scope, policy, percent = one.what
                command: object = RegisterInstance(
                    project="odin",
                    instance_type="PS",
                    scope=scope,
                    parent_id=other,
                    restart_policy=policy,
                    initial_context=percent,
                )
            case "move":
                command = SetParent(instance_id=who, parent_id=other)
            case "close":
                command = CloseInstance(instance_id=who, cascade=one.what)
            case "beat":
                command = BeatInstance(instance_id=who, **one.what)
            case "resume":
                command = ResumeInstance(instance_id=who)
            case "emit":
                event_type, data = one.what
                command = EmitEvent(instance_id=who, event_type=event_type, event_data=data)
            case _:
                return self.here.loop.start(self._sweep(NoteStale(instance_id=who)))
        return process.begin(command, namespace=self.namespace)

    async def _sweep(self, command: NoteStale) -> Done:
        return done(await self.sweeper.submit(command, context(command, namespace=self.namespace)))

    def _agree(self, reply: Json) -> None:
        """A command's reply says what the events say."""
        aggregate = self.fold(reply["instance_id"])
        reply = {name: value for name, value in reply.items() if name != "cascaded"}
        assert _still(reply) == _still(
            _as_json(view(aggregate, _now(aggregate, reply), STALE, ALWAYS))
        )

    def fold(self, instance_id: str) -> Instance:
        """An instance as its events alone make it."""
        aggregate = Instance(id=Instance.stream_id(instance_id))
        for row in self.events(instance_id):
            aggregate.mutate(self.here.mapper.event(*row[2:]))
        return aggregate

    def events(self, instance_id: str) -> list[Recorded]:
        """An instance's events."""
        return self.here.store.read_stream(self.namespace, Instance.stream_id(instance_id))

    def look(self) -> None:
        """Every reader sees what the events say; the hierarchy is whole."""
        folded = {instance_id: self.fold(instance_id) for instance_id in self.ids}
        answer = self.here.ask(instances.listed, Page(200, 0))
        shown = {row["instance_id"]: row for row in answer["instances"]}
        assert shown.keys() == folded.keys()
        for instance_id, aggregate in folded.items():
            row = shown[instance_id]
            assert _still(row) == _still(view(aggregate, _now(aggregate, row), STALE, ALWAYS))
            self.shown.setdefault((instance_id, aggregate.version), row)
        statuses = [aggregate.status for aggregate in folded.values()]
        assert answer["active_count"] == statuses.count("active")
        assert answer["stale_count"] == statuses.count("stale")
        self._check_hierarchy(folded)
        self._check_topology(folded)
        self._check_successors(folded)

    def _check_hierarchy(self, folded: dict[str, Instance]) -> None:
        live = [i for i, a in folded.items() if a.scope == "global" and a.status != "closed"]
        claim = Claim(id=Claim.stream_id(GLOBAL))
        for row in self.here.store.read_stream(self.namespace, claim.id):
            claim.mutate(self.here.mapper.event(*row[2:]))
        assert live == ([claim.holder_id] if claim.holder_id else [])
        for instance_id, aggregate in folded.items():
            for child in aggregate.children:
                assert folded[child].parent_id == instance_id
            parent_id = aggregate.parent_id
            if parent_id is None:
                assert MAY_BE_ROOT[aggregate.scope]
            else:
                is_open = aggregate.status != "closed"
                if is_open or folded[parent_id].status != "closed":
                    assert (instance_id in folded[parent_id].children) is is_open
                assert folded[parent_id].scope == PARENT_SCOPE[aggregate.scope]
                self._check_orphan(aggregate, folded[parent_id])
            types = [row.event_type for row in self.events(instance_id)]
            assert types.count("instance_closed") == (aggregate.status == "closed")
            if aggregate.status == "closed":
                # Children may still leave; none comes, and nothing else is done.
                afterwards = types[types.index("instance_closed") + 1 :]
                over = {"child_removed", "claim_given_up", "claim_lost", "instance_resumed"}
                assert set(afterwards) <= over

    def _check_orphan(self, child: Instance, parent: Instance) -> None:
        """A live child of a closed parent was silent when the parent closed (spec 17)."""
        if child.status == "closed" or parent.status != "closed":
            return
        [closed] = [e for e in self.events(parent.key) if e.event_type == "instance_closed"]
        silences = [e for e in self.events(child.key) if e.event_type == "instance_stale"]
        assert any(silence.position < closed.position for silence in silences)

    def _check_topology(self, folded: dict[str, Instance]) -> None:
        topology = self.here.ask(instances.topology)
        parents: dict[str, str | None] = {}

        def walk(nodes: list[Json], parent: str | None) -> None:
            for node in nodes:
                assert node["instance_id"] not in parents
                parents[node["instance_id"]] = parent
                walk(node["children"], node["instance_id"])

        walk(topology["roots"], None)
        live = {i: a for i, a in folded.items() if a.status != "closed"}
        assert parents == {i: a.parent_id if a.parent_id in live else None for i, a in live.items()}
        orphans = [i for i, a in live.items() if a.parent_id and a.parent_id not in live]
        assert sorted(topology["orphans"]) == sorted(orphans)
        assert topology["total_count"] == len(live)

    def _check_successors(self, folded: dict[str, Instance]) -> None:
        """Who was resumed has ended, holds nothing, and has one successor, which says so too."""
        heirs = {i: a.predecessor for i, a in folded.items() if a.predecessor}
        resumed = {i: a.successor for i, a in folded.items() if a.successor}
        assert {former: heir for heir, former in heirs.items()} == resumed
        assert len(heirs) == len(resumed)
        for former, heir in resumed.items():
            gone = folded[former]
            assert (gone.status, gone.held) == ("closed", {})
            assert folded[heir or ""].scope == gone.scope
            assert all(folded[child].status == "closed" for child in gone.children)

    def resume_again(self) -> None:
        """Resuming twice is resuming once: the same successor, and nothing more is recorded."""
        for instance_id in self.ids:
            successor = self.fold(instance_id).successor
            if successor is not None:
                before = self.here.store.head(self.namespace)
                for process in self.processes:
                    again = process.do(
                        ResumeInstance(instance_id=instance_id), namespace=self.namespace
                    )
                    assert (again.status, again["instance_id"]) == (200, successor)
                assert self.here.store.head(self.namespace) == before

    def replay(self) -> None:
        """Replay leads to every point as it was, and to what readers were shown there."""
        history = History(self.here.store, self.here.mapper)
        for instance_id in self.ids:
            stream_id = Instance.stream_id(instance_id)
            aggregate = Instance(id=stream_id)
            for row in self.events(instance_id):
                aggregate.mutate(self.here.mapper.event(*row[2:]))
                version = aggregate.version
                state = history.replay(self.namespace, stream_id, version)["final_state"]
                told = aggregate.state()
                assert {name: state[name] for name in told if name != "last_event_type"} == {
                    name: value for name, value in told.items() if name != "last_event_type"
                }
                if (seen := self.shown.get((instance_id, version))) is not None:
                    again = history.state_at(self.namespace, stream_id, version)
                    assert isinstance(again, Instance)
                    assert _still(view(again, _now(again, seen), STALE, ALWAYS)) == _still(seen)


def _still(shown: Json) -> Json:
    """Without what moves with the clock."""
    return {k: v for k, v in shown.items() if k not in ("age_seconds", "uptime_seconds")}


def _now(aggregate: Instance, shown: Json) -> datetime:
    """The moment at which it was shown."""
    assert aggregate.last_heartbeat is not None
    return aggregate.last_heartbeat + timedelta(seconds=shown["age_seconds"])


def _as_json(value: Json) -> Json:
    def spelled(moment: datetime) -> str:
        return moment.isoformat().replace("+00:00", "Z")

    plain: Json = json.loads(json.dumps(value, default=spelled))
    return plain


@contextmanager
def sweeping(on: Service) -> Iterator[Engine]:
    """A third process, to which whoever does not beat this very moment has fallen silent."""
    engine = Engine(on.store, on.mapper, HANDLERS, Policy(instance_stale_seconds=0))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def rows(url: str) -> list[tuple[Any, ...]]:
    """The whole read model."""
    return ask(url, "SELECT * FROM instances ORDER BY namespace, instance_id")


def test_any_story_told_by_two_processes_is_one_that_all_agree_on(database: str) -> None:
    numbers = itertools.count()
    with (
        service(database) as here,
        service(database, projecting=False) as there,
        sweeping(here) as sweeper,
    ):

        @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(stories)
        def holds(story: list[list[Step]]) -> None:
            here.namespace = f"story-{next(numbers)}"
            told = Story((here, there), sweeper, here.namespace)
            told.plant()
            for together in story:
                told.carry_out(together)
                told.look()
            told.resume_again()
            told.replay()

        holds()
        live = rows(database)
        assert live
        schema.rebuild(database)
        assert rows(database) == live


# Queries


KEY = "odin-PS-8f4a2b"
STREAM = Instance.stream_id(KEY)
PAYLOADS: Sequence[tuple[str, Json]] = [
    ("epic_started", {"epic_id": "epic-003", "feature_name": "OAuth 50% _done_"}),
    ("test_passed", {"epic_id": "epic-003", "passed_count": 45, "coverage_percent": 87.5}),
    ("commit_created", {"commit": "a1b2c3d", "message": 'Größe ≤ 9\n\t"q" \\ /'}),
    ("command_logged", {"command": "grep -E '^(a|b).*$' %_\\", "exit_code": -9}),
    ("checkpoint_created", {"label": "l", "state": {"zz": [1, None, True], "a": {}, "é": []}}),
    ("epic_failed", {"epic_id": "EPIC-003", "reason": None}),
]


def given_history(here: Service) -> list[Recorded]:
    """Events of several types, some at the same moment, some at the edges of a second."""
    instance = Instance(id=STREAM)
    instance.register(
        at(0), project="odin", project_name="Odin", instance_type="PS", scope="project"
    )
    for number in range(1, 61):
        now = at(number // 3 + (number % 3) * 0.000001)
        if number % 4 == 0:
            instance.beat(now, context_percent=number)
        else:
            event_type, data = PAYLOADS[number % len(PAYLOADS)]
            instance.record_work(now, event_type, data)
    here.given(instance)
    return here.store.read_stream("default", STREAM)


def json_text(value: object) -> str:
    """A payload's JSON text as the store has it: short keys first."""
    match value:
        case dict():
            names = sorted(value, key=lambda k: (len(k.encode()), k.encode()))
            inside = ", ".join(f"{json_text(k)}: {json_text(value[k])}" for k in names)
            return "{" + inside + "}"
        case list():
            return f"[{', '.join(map(json_text, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def test_a_query_finds_what_a_look_at_the_whole_history_finds(database: str) -> None:
    with service(database, projecting=False) as here:
        whole = given_history(here)
        texts = {row.sequence_num: json_text(row.event_data).lower() for row in whole}
        history = History(here.store, here.mapper)
        moments = st.none() | st.builds(
            lambda second, micro: at(second + micro / 1_000_000),
            st.integers(-1, 22),
            st.integers(-1, 3),
        )
        pieces = st.builds(
            lambda number, start, length, swap: _piece(
                whole[number].event_data, start, length, swap
            ),
            st.integers(0, len(whole) - 1),
            st.integers(0, 60),
            st.integers(1, 12),
            st.booleans(),
        ).filter(bool)
        keywords = st.none() | pieces | st.sampled_from(["%", "_", "\\", "\\\\", "x%y", "'", "é"])
        types = st.lists(st.sampled_from([*(t for t, _ in PAYLOADS), "instance_heartbeat", "no"]))
        criteria = st.builds(Criteria, types, moments, moments, keywords, st.booleans())

        @settings(max_examples=300, deadline=None)
        @given(criteria, st.integers(1, 70), st.integers(0, 70))
        def agrees(wanted: Criteria, limit: int, offset: int) -> None:
            if wanted.start and wanted.end and wanted.start > wanted.end:
                try:
                    history.find("default", STREAM, wanted, limit, offset)
                except InvalidInput:
                    return
                raise AssertionError("a range upside down was taken")
            found = history.find("default", STREAM, wanted, limit, offset)
            expected = [
                row
                for row in whole
                if (not wanted.types or row.event_type in wanted.types)
                and (wanted.start is None or row.timestamp >= wanted.start)
                and (wanted.end is None or row.timestamp <= wanted.end)
                and (wanted.keyword is None or wanted.keyword.lower() in texts[row.sequence_num])
            ]
            if wanted.newest_first:
                expected.reverse()
            assert found.events == expected[offset : offset + limit]
            assert found.total_count == len(expected)

        agrees()


def _piece(data: Json, start: int, length: int, swap: bool) -> str:
    piece = json_text(data)[start : start + length]
    return piece.swapcase() if swap else piece
