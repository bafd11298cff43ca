"""Whatever holders do, in any order: one holder an item, both sides agree, fences only rise."""

from __future__ import annotations

import itertools
import uuid
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from application import claims, instances, sessions, work_items
from application.engine.unit_of_work import Missing, Policy, Reply, UnitOfWork
from application.eventstore.mapper import Mapper, Origin, Recorded
from application.registry import EVENTS, HANDLERS
from application.resume import ResumeInstance
from domain.aggregate import Aggregate, Json
from domain.claims.claim import Claim, is_work_item
from domain.claims.holder import Holder
from domain.errors import HoldfastError
from domain.instances.instance import Instance
from domain.sessions.session import Session
from projections.work_items import WorkItems
from tests.support.folding import Folded, as_recorded
from tests.support.given import START

A = TypeVar("A", bound=Aggregate)

ITEMS = ("a", "b", "c", "d")
POLICY = Policy()
STALL_MS = POLICY.stall_threshold_ms
BROKEN = ("failed", "stalled")
# More than these do not come by themselves; all others are somebody's successors.
CROWD = 6

items = st.sampled_from(ITEMS)
someone = st.integers(0, 30)
machines = st.sampled_from(["m1", "m2"])
waits = st.lists(items, max_size=2)
fences = st.none() | st.integers(1, 12)
seconds = st.sampled_from([1, 60, 179.5, 181, 300, 301])


class Namespace:
    """The service's own handlers over aggregates in memory; what they record is the log."""

    def __init__(self) -> None:
        self.now = START
        self.aggregates: dict[str, Aggregate] = {}
        self.log: list[Recorded] = []
        self._mapper = Mapper(EVENTS)

    def do(self, command: object) -> Reply:
        """Carry out a command. One that is refused leaves everything as it was."""
        work = UnitOfWork(POLICY, self.aggregates, self.now)
        while True:
            work.begin(str(uuid.UUID(int=len(self.log))))
            try:
                reply = HANDLERS[type(command)](work, command)
            except Missing as missing:
                for stream_id, cls in missing.streams.items():
                    self.aggregates[stream_id] = cls(id=stream_id)
            except HoldfastError:
                for stream_id, aggregate in work.seen.items():
                    self.aggregates[stream_id] = self.replayed(aggregate)
                raise
            else:
                self._store(work)
                return reply

    def replayed(self, aggregate: Aggregate) -> Aggregate:
        """The aggregate as its events alone make it."""
        again = type(aggregate)(id=aggregate.id)
        for row in self.log:
            if row.stream_id == aggregate.id:
                again.mutate(self._mapper.event(*row[2:]))
        return again

    def _store(self, work: UnitOfWork) -> None:
        origin = Origin(work.request_id, "key-1", "command")
        for aggregate in work.seen.values():
            for row in self._mapper.rows(aggregate.collect_events(), origin):
                self.log.append(as_recorded(row, len(self.log) + 1))


class Claims(RuleBasedStateMachine):
    """Sessions and instances that claim, lose, finish and end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Namespace()
        self.rows = Folded(WorkItems())
        self.folded = 0
        self.names: list[Json] = []
        # The last fence of each resource, and who has it under that.
        self.grants: dict[str, tuple[int, str | None]] = {}

    @initialize()
    def begin(self) -> None:
        self.open_session("p1", "m1", None, replace=False)
        self.open_session("p1", "m2", 1, replace=False)
        self.register()
        for number, item in enumerate(ITEMS):
            self.claim(number, item, takeover=False)

    # Holders

    @rule(
        project=st.sampled_from(["p1", "p2"]),
        machine=machines,
        slot=st.sampled_from([None, 1]),
        replace=st.booleans(),
    )
    @precondition(lambda self: len(self.names) < CROWD)
    def open_session(self, project: str, machine: str, slot: int | None, replace: bool) -> None:
        reply = self._do(
            sessions.CreateSession(
                project_id=project, machine_id=machine, docker_slot=slot, replace=replace
            )
        )
        if reply:
            self.names.append({"session_id": reply["session_id"]})

    @precondition(lambda self: len(self.names) < CROWD)
    @rule()
    def register(self) -> None:
        reply = self._do(instances.RegisterInstance(project="odin", instance_type="PS"))
        if reply:
            self.names.append({"instance_id": reply["instance_id"]})

    @rule(who=someone)
    def beat(self, who: int) -> None:
        named = self._named(who)
        lost = self._holder(named).lost_claims
        if "session_id" in named:
            reply = self._do(sessions.BeatSession(**named))
        else:
            reply = self._do(instances.BeatInstance(**named))
        if reply:
            assert reply.get("lost_claims", []) == lost
            assert self._holder(named).lost_claims == []

    @rule(gone=seconds)
    def time_passes(self, gone: float) -> None:
        self.world.now += timedelta(seconds=gone)

    @rule(who=someone, how=st.sampled_from(["completed", "failed", "stalled", "paused", "active"]))
    def change_status(self, who: int, how: Any) -> None:
        named = self._named(who)
        if "session_id" in named:
            self._do(sessions.UpdateSession(**named, status=how))

    @rule(who=someone, sure=st.integers(0, 3))
    def end(self, who: int, sure: int) -> None:
        named = self._named(who)
        if sure:
            return
        if "session_id" in named:
            self._do(sessions.DeleteSession(**named))
        else:
            self._do(instances.CloseInstance(**named))

    @rule(who=someone, machine=machines, slot=st.sampled_from([None, 1]))
    @precondition(lambda self: self._broken_off())
    def recover(self, who: int, machine: str, slot: int | None) -> None:
        broken_off = self._broken_off()
        original = broken_off[who % len(broken_off)]
        named = {"session_id": original.key}
        held = {item: fence for item, fence in original.held.items() if is_work_item(item)}
        released = original.released_items
        free = {item for item in released if self._claim(item).status == "open"}
        reply = self._do(sessions.RecoverSession(**named, new_machine_id=machine, docker_slot=slot))
        if reply:
            successor = {"session_id": reply["session_id"]}
            self.names.append(successor)
            moved = self._holder(successor).held
            assert {item for item in moved if is_work_item(item)} == held.keys() | free
            assert all(moved[item] > fence for item, fence in held.items())
            lost = [item["item_id"] for item in reply.get("lost_items", [])]
            assert lost == [item for item in released if item not in free]

    @rule(who=someone)
    def resume(self, who: int) -> None:
        named = self._named(who)
        if "instance_id" not in named:
            return
        predecessor = self._holder(named)
        assert isinstance(predecessor, Instance)
        held = dict(predecessor.held)
        first = predecessor.successor is None
        reply = self._do(ResumeInstance(**named))
        if reply and first:
            successor = {"instance_id": reply["successor"]}
            self.names.append(successor)
            moved = self._holder(successor).held
            assert moved.keys() == held.keys()
            assert all(moved[item] > fence for item, fence in held.items())

    # Items

    @rule(item=items, depends_on=st.none() | waits | waits, priority=st.none() | someone)
    def list_item(self, item: str, depends_on: list[str] | None, priority: int | None) -> None:
        said: Json = {} if depends_on is None else {"depends_on": depends_on}
        self._do(work_items.ListItem(item_id=item, priority=priority, **said))

    @rule(who=someone, item=items, takeover=st.booleans())
    def claim(self, who: int, item: str, takeover: bool) -> None:
        before = self._claim(item).holder_id
        reply = self._do(claims.ClaimItem(**self._named(who), item_id=item, takeover=takeover))
        if reply and before != reply["holder"]:
            self._require_ready(item)

    @rule(who=someone, order=st.permutations(ITEMS), takeover=st.booleans())
    def claim_next(self, who: int, order: list[str], takeover: bool) -> None:
        listed = [item for item in order if self._claim(item).item is not None]
        silent = {
            claim.resource
            for claim in self._held()
            if self._silent(claim) > POLICY.claim_stale_seconds
        }
        reply = self._do(
            work_items.ClaimNext(**self._named(who), candidates=listed, takeover=takeover)
        )
        if reply:
            self._require_ready(reply["item_id"])
            if "taken_from" in reply:
                assert takeover
                assert reply["item_id"] in silent

    @rule(item=items, how=st.sampled_from(["reopen", "cancel", "remove"]))
    def tidy(self, item: str, how: str) -> None:
        claim = self._claim(item)
        before, holder_id = claim.status, claim.holder_id
        if how == "reopen":
            done = self._do(work_items.ReopenItem(item_id=item, reason="again"))
        elif how == "cancel":
            done = self._do(work_items.CancelItem(item_id=item))
        else:
            done = self._do(work_items.RemoveItem(item_id=item))
        if done is None:
            return
        claim = self._claim(item)
        assert claim.holder_id is None
        if how == "reopen":
            assert (before in ("completed", "cancelled"), claim.status) == (True, "open")
        elif how == "cancel":
            assert (before != "completed", claim.status) == (True, "cancelled")
        else:
            assert (holder_id, claim.status) == (None, "removed")

    def _silent(self, claim: Claim) -> float:
        kind = Session if claim.holder_kind == "session" else Instance
        holder = self.world.aggregates[kind.stream_id(claim.holder_id or "")]
        assert isinstance(holder, Holder)
        return claim.silent_seconds(self.world.now, holder.gap_seconds(self.world.now))

    def _require_ready(self, item: str) -> None:
        waits_for = self._claim(item).require_listed().depends_on
        assert all(self._claim(other).is_settled for other in waits_for)

    @rule(who=someone, item=items, fence=fences)
    def release(self, who: int, item: str, fence: int | None) -> None:
        self._do(claims.ReleaseClaim(**self._named(who), item_id=item, fence=fence))

    @rule(who=someone, item=items, fence=fences)
    def complete(self, who: int, item: str, fence: int | None) -> None:
        self._complete(self._named(who), item, fence)

    @precondition(lambda self: self._held())
    @rule(which=someone, done=st.booleans())
    def let_go(self, which: int, done: bool) -> None:
        held = self._held()
        claim = held[which % len(held)]
        kind = "session_id" if claim.holder_kind == "session" else "instance_id"
        holder = {kind: claim.holder_id}
        if done:
            self._complete(holder, claim.resource, claim.fence)
            assert claim.status == "completed"
        else:
            self._do(claims.ReleaseClaim(**holder, item_id=claim.resource))
            assert claim.status == "open"

    def _complete(self, named: Json, item: str, fence: int | None) -> None:
        holder, given = self._claim(item).holder_id, self._claim(item).fence
        reply = self._do(work_items.CompleteItem(**named, item_id=item, fence=fence))
        if reply:
            assert reply["completed_by"] == holder
            assert fence in (None, given)

    # What must hold

    @invariant()
    def both_sides_agree(self) -> None:
        by_claims = {
            claim.resource: (claim.holder_kind, claim.holder_id, claim.fence)
            for claim in self._all(Claim)
            if claim.holder_id is not None
        }
        by_holders = [
            (resource, (holder.category, holder.key, fence))
            for holder in (*self._all(Session), *self._all(Instance))
            for resource, fence in holder.held.items()
        ]
        assert len(by_holders) == len(dict(by_holders)), "two hold one resource"
        assert dict(by_holders) == by_claims

    @invariant()
    def who_has_ended_holds_nothing(self) -> None:
        for holder in (*self._all(Session), *self._all(Instance)):
            if holder.version and holder.has_ended:
                assert holder.held == {}

    @invariant()
    def fences_only_rise(self) -> None:
        for claim in self._all(Claim):
            fence, holder_id = self.grants.get(claim.resource, (0, None))
            if claim.fence == 0:  # nobody has had it since it was removed
                continue
            assert claim.fence >= fence
            if claim.holder_id is not None and claim.holder_id != holder_id:
                assert claim.fence > fence
            assert claim.fence <= claim.version
            self.grants[claim.resource] = claim.fence, claim.holder_id

    @invariant()
    def nothing_waits_in_a_circle(self) -> None:
        # What is done waits for nothing.
        waits = {
            claim.resource: set(claim.item.depends_on)
            for claim in self._all(Claim)
            if claim.item and not claim.is_settled
        }
        while free := [item for item, others in waits.items() if not others & waits.keys()]:
            for item in free:
                del waits[item]
        assert waits == {}

    @invariant()
    def a_completed_item_stays_completed_until_it_is_reopened(self) -> None:
        turns = {f"work_item_{word}" for word in ("completed", "reopened", "cancelled", "removed")}
        for claim in self._all(Claim):
            ends = [row.event_type for row in self._rows(claim) if row.event_type in turns]
            assert (claim.status == "completed") is (ends[-1:] == ["work_item_completed"])
            assert all(
                after in ("work_item_reopened", "work_item_removed")
                for before, after in itertools.pairwise(ends)
                if before == "work_item_completed"
            )
            if claim.is_settled:
                assert claim.holder_id is None

    @invariant()
    def the_read_model_agrees(self) -> None:
        for event in itertools.islice(self.world.log, self.folded, None):
            if event.stream_id.startswith("claim-"):
                self.rows.fold(event)
        self.folded = len(self.world.log)
        listed = {c.resource: c for c in self._all(Claim) if c.item is not None}
        there = {key for key, row in self.rows.rows.items() if row["status"] != "removed"}
        assert there == listed.keys()
        assert all(map(is_work_item, listed))
        for item_id, claim in listed.items():
            row = self.rows.rows[item_id]
            item = claim.require_listed()
            for name in ("title", "priority", "depends_on", "completed_by", "updated_at"):
                assert row[name] == getattr(item, name), name
            for name in ("status", "holder_kind", "holder_id", "claimed_at", "last_machine_id"):
                assert row[name] == getattr(claim, name), name
            assert (row["fence"] or 0) == claim.fence

    def teardown(self) -> None:
        """What is in memory is what the events alone make of it."""
        for aggregate in self.world.aggregates.values():
            assert self.world.replayed(aggregate).state() == aggregate.state()

    def _do(self, command: object) -> Json | None:
        try:
            return self.world.do(command).value
        except HoldfastError:
            return None

    def _named(self, who: int) -> Json:
        return self.names[who % len(self.names)]

    def _held(self) -> list[Claim]:
        return [c for c in self._all(Claim) if c.holder_id and is_work_item(c.resource)]

    def _broken_off(self) -> list[Session]:
        return [s for s in self._all(Session) if s.status_at(self.world.now, STALL_MS) in BROKEN]

    def _holder(self, named: Json) -> Holder:
        cls: type[Session | Instance] = Session if "session_id" in named else Instance
        (key,) = named.values()
        holder = self.world.aggregates[cls.stream_id(key)]
        assert isinstance(holder, Holder)
        return holder

    def _claim(self, item: str) -> Claim:
        stream_id = Claim.stream_id(item)
        claim = self.world.aggregates.setdefault(stream_id, Claim(id=stream_id))
        assert isinstance(claim, Claim)
        return claim

    def _all(self, cls: type[A]) -> list[A]:
        return [a for a in self.world.aggregates.values() if isinstance(a, cls)]

    def _rows(self, aggregate: Aggregate) -> list[Recorded]:
        return [row for row in self.world.log if row.stream_id == aggregate.id]


TestClaims = Claims.TestCase
TestClaims.settings = settings(
    max_examples=120, stateful_step_count=80, deadline=None, print_blob=True
)
