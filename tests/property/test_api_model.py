"""The HTTP API against a small model of it: whatever is asked, statuses and state agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, CommonServer, Json, Server, cloned, ok, refused

PROJECTS = st.sampled_from(["odin", "thor"])
MACHINES = st.sampled_from(["rack-1", "rack-2"])
SLOTS = st.sampled_from([None, None, 1, 2])
ANY = st.integers(0, 1_000)
METADATA = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9), max_size=3)
TASK_MOVES = {
    "pending": {"in_progress", "completed", "failed", "blocked"},
    "in_progress": {"completed", "failed", "blocked"},
    "blocked": {"pending", "in_progress", "completed", "failed"},
    "completed": {"blocked"},
    "failed": {"blocked"},
}
LIVE = {"active", "paused", "stalled"}


class Refusal(Exception):
    """What the model says no to: the status and the code of the reply."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Place(NamedTuple):
    """Where a session works."""

    project: str
    machine: str
    slot: int | None

    @property
    def claims(self) -> list[tuple[object, ...]]:
        """What is held by whoever works there: the place and, if it names one, the slot."""
        return [self, *([(self.machine, self.slot)] if self.slot is not None else [])]


@dataclass
class Task:
    """A task as clients see it."""

    status: str = "pending"
    carried_from: str | None = None


@dataclass
class Session:
    """A session as clients see it."""

    place: Place
    metadata: Json
    machine: str | None
    recovered_from: str | None = None
    status: str = "active"
    outcome: str | None = None
    current_task: str | None = None
    recovered_to: str | None = None
    recovered_onto: str | None = None
    superseded_by: str | None = None
    archived: bool = False
    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Not ended."""
        return self.status in LIVE

    def require_not_recovered(self) -> None:
        """A recovered session takes no more writes."""
        if self.recovered_to:
            raise Refusal(409, "session_ended")

    def require_writable(self) -> None:
        """The session itself may still write."""
        self.require_not_recovered()
        if not self.is_live:
            raise Refusal(409, "session_ended")
        if self.superseded_by:
            raise Refusal(409, "superseded")

    def require_live(self) -> None:
        """Its status may still change."""
        self.require_not_recovered()
        if not self.is_live:
            raise Refusal(409, "invalid_transition")

    def fail(self, why: str) -> None:
        """End badly, with every task in progress."""
        for task_id, task in self.tasks.items():
            if task.status == "in_progress":
                task.status = "failed"
                self.forget(task_id)
        self.status = self.outcome = "failed"
        self.metadata["error_message"] = why

    def forget(self, task_id: str) -> None:
        """The task is not the current one any more."""
        if self.current_task == task_id:
            self.current_task = None

    def annotate(self, metadata: Json) -> None:
        """Merge; null removes."""
        both = {**self.metadata, **metadata}
        self.metadata = {key: value for key, value in both.items() if value is not None}


@dataclass
class Machine:
    """A machine as clients see it; no slots were declared if they are None."""

    slots: list[int] | None
    status: str = "online"


class World:
    """The model: all that one namespace has, and the rules of spec 7."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.machines: dict[str, Machine] = {}
        self.held: dict[tuple[object, ...], str] = {}

    def require_available(self, machine: str) -> None:
        """No work is put on a machine that is offline or in maintenance."""
        known = self.machines.get(machine)
        if known and known.status != "online":
            raise Refusal(409, "machine_unavailable")

    def require_free(
        self, place: Place, *, replace: bool = False, leaving: str | None = None
    ) -> None:
        """Nobody who is active or paused is in the way."""
        machine = self.machines.get(place.machine)
        declared = machine.slots if machine else None
        if place.slot is not None and declared is not None and place.slot not in declared:
            raise Refusal(400, "unknown_slot")
        occupants = [self._occupant(claim, leaving) for claim in place.claims]
        if occupants[0] and not replace:
            raise Refusal(409, "session_exists")
        if len(occupants) > 1 and occupants[1] and occupants[1] != occupants[0]:
            raise Refusal(409, "slot_taken")

    def occupy(self, session_id: str, place: Place, leaving: str | None = None) -> None:
        """Whoever was there has gone, and knows by whom."""
        self.machines.setdefault(place.machine, Machine(None))
        before = {claim: self.held.get(claim) for claim in place.claims}
        for holder_id in dict.fromkeys(before.values()):
            if holder_id is None or holder_id == leaving:
                continue
            holder = self.sessions[holder_id]
            holder.superseded_by = session_id
            if holder.status != "stalled":
                holder.fail(f"Replaced by session {session_id}.")
            self.release(holder_id)
        for claim in place.claims:
            self.held[claim] = session_id

    def release(self, session_id: str) -> None:
        """Let go of all that the session holds."""
        self.held = {claim: s for claim, s in self.held.items() if s != session_id}

    def _occupant(self, claim: tuple[object, ...], leaving: str | None) -> str | None:
        holder = self.held.get(claim)
        if holder is None or holder == leaving or self.sessions[holder].status == "stalled":
            return None
        return holder


class ApiMachine(RuleBasedStateMachine):
    """Asks the API and the model the same, and compares."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.api = self.server.world()
        self.world = World()
        self.gone: list[str] = [str(uuid4())]

    def teardown(self) -> None:
        self.api.close()

    def _agrees(self, reply: httpx.Response, refusal: Refusal | None, status: int = 200) -> Json:
        """The reply's body; its status must be what the model says."""
        if refusal is not None:
            return refused(reply, refusal.status, refusal.code)
        if status == 204:
            assert reply.status_code == 204, reply.text
            return {}
        return ok(reply, status)

    def _session(self, any_number: int) -> tuple[str, Session]:
        ids = list(self.world.sessions)
        session_id = ids[any_number % len(ids)]
        return session_id, self.world.sessions[session_id]

    def _task(self, any_number: int) -> tuple[str, Session, Task] | None:
        tasks = [
            (task_id, session, task)
            for session in self.world.sessions.values()
            for task_id, task in session.tasks.items()
        ]
        return tasks[any_number % len(tasks)] if tasks else None

    def has_sessions(self) -> bool:
        """Whether there is a session to do something with."""
        return bool(self.world.sessions)

    # Sessions

    @rule(project=PROJECTS, machine=MACHINES, slot=SLOTS, replace=st.booleans(), metadata=METADATA)
    def create_session(
        self, project: str, machine: str, slot: int | None, replace: bool, metadata: Json
    ) -> None:
        place = Place(project, machine, slot)

        def check() -> None:
            self.world.require_available(machine)
            self.world.require_free(place, replace=replace)

        refusal = _refusal(check)
        body: Json = {"project_id": project, "machine_id": machine, "metadata": metadata}
        body |= {"docker_slot": slot, "replace": replace}
        created = self._agrees(self.api.post("/api/sessions", json=body), refusal, 201)
        if refusal is None:
            session = Session(place, {}, machine)
            session.annotate(metadata)
            self.world.occupy(created["session_id"], place)
            self.world.sessions[created["session_id"]] = session

    @precondition(has_sessions)
    @rule(which=ANY, metadata=METADATA)
    def beat(self, which: int, metadata: Json) -> None:
        session_id, session = self._session(which)
        refusal = _refusal(session.require_writable)
        path = f"/api/sessions/{session_id}/heartbeat"
        self._agrees(self.api.post(path, json={"metadata": metadata}), refusal)
        if refusal is None:
            session.annotate(metadata)
            if session.status == "stalled":
                session.status = "active"

    @precondition(has_sessions)
    @rule(
        which=ANY,
        status=st.sampled_from(["active", "active", "paused", "stalled", "completed", "failed"]),
    )
    def patch_status(self, which: int, status: str) -> None:
        session_id, session = self._session(which)

        def check() -> None:
            session.require_live()
            session.require_writable()

        refusal = _refusal(check)
        path = f"/api/sessions/{session_id}"
        self._agrees(self.api.patch(path, json={"status": status}), refusal)
        if refusal is not None:
            return
        if status == "failed":
            session.fail("The session was set to failed.")
        session.status = status
        if status == "completed":
            session.outcome = "completed"
        if not session.is_live:
            self.world.release(session_id)

    @precondition(has_sessions)
    @rule(which=ANY, metadata=METADATA, task=st.none() | st.sampled_from(["a task", "another"]))
    def annotate(self, which: int, metadata: Json, task: str | None) -> None:
        session_id, session = self._session(which)

        def check() -> None:
            session.require_not_recovered()
            if session.is_live:
                session.require_writable()

        refusal = _refusal(check)
        body = {"metadata": metadata, "current_task_id": task}
        self._agrees(self.api.patch(f"/api/sessions/{session_id}", json=body), refusal)
        if refusal is None:
            session.annotate(metadata)
            session.current_task = task

    @precondition(has_sessions)
    @rule(which=ANY)
    def mark_failed(self, which: int) -> None:
        session_id, session = self._session(which)
        refusal = _refusal(session.require_live)
        path = f"/api/sessions/{session_id}/mark-failed"
        self._agrees(self.api.post(path, json={"error_message": "it broke"}), refusal)
        if refusal is None:
            session.fail("it broke")
            self.world.release(session_id)

    @precondition(has_sessions)
    @rule(which=ANY)
    def mark_stalled(self, which: int) -> None:
        session_id, session = self._session(which)
        refusal = _refusal(session.require_live)
        self._agrees(self.api.post(f"/api/sessions/{session_id}/mark-stalled"), refusal)
        if refusal is None:
            session.status = "stalled"

    @precondition(has_sessions)
    @rule(which=ANY, clear=st.booleans())
    def prepare_recovery(self, which: int, clear: bool) -> None:
        session_id, session = self._session(which)
        path = f"/api/sessions/{session_id}/prepare-recovery"
        refusal = None
        if session.status not in ("failed", "stalled"):
            refusal = Refusal(400, "not_recoverable")
        reply = self.api.post(path, json={"clear_machine": clear})
        prepared = self._agrees(reply, refusal)
        if refusal is None:
            session.metadata["recovery_prepared_at"] = prepared["updated_at"]
            if clear:
                session.machine = None

    @precondition(has_sessions)
    @rule(which=ANY, machine=MACHINES, slot=SLOTS, reset=st.booleans())
    def recover(self, which: int, machine: str, slot: int | None, reset: bool) -> None:
        session_id, session = self._session(which)
        place = Place(session.place.project, machine, slot)

        def check() -> None:
            if session.recovered_to and session.recovered_onto != machine:
                raise Refusal(409, "already_recovered")
            if session.recovered_to:
                return
            if session.status not in ("failed", "stalled"):
                raise Refusal(400, "not_recoverable")
            self.world.require_available(machine)
            self.world.require_free(place, leaving=session_id)

        refusal = _refusal(check)
        again = session.recovered_to
        body = {"new_machine_id": machine, "docker_slot": slot, "reset_failed_tasks": reset}
        reply = self.api.post(f"/api/sessions/{session_id}/recover", json=body)
        opened = self._agrees(reply, refusal, 200 if again else 201)
        if refusal is not None:
            return
        if again:
            assert opened["session_id"] == again
            return
        self._recovered(session_id, session, opened["session_id"], place, reset)

    def _recovered(
        self, session_id: str, session: Session, new_id: str, place: Place, reset: bool
    ) -> None:
        own = {"error_message", "recovery", "recovery_prepared_at", "archived", "archived_at"}
        inherited = {key: value for key, value in session.metadata.items() if key not in own}
        inherited["recovery"] = {"recovered_from": session_id}
        successor = Session(place, inherited, place.machine, recovered_from=session_id)
        carried = {"pending", "blocked"} | ({"failed", "in_progress"} if reset else set())
        listed = ok(self.api.get("/api/tasks", params={"session_id": new_id, "limit": 200}))
        old = {i: task for i, task in session.tasks.items() if task.status in carried}
        assert [task["carried_from"] for task in listed["tasks"]] == list(old)
        for new, (old_id, task) in zip(listed["tasks"], old.items(), strict=True):
            status = "blocked" if task.status == "blocked" else "pending"
            successor.tasks[new["task_id"]] = Task(status, carried_from=old_id)
        session.status, session.outcome = "completed", "recovered"
        session.recovered_to, session.recovered_onto = new_id, place.machine
        session.metadata["recovery"] = {"outcome": "recovered", "recovered_to": new_id}
        self.world.occupy(new_id, place, leaving=session_id)
        self.world.release(session_id)
        self.world.sessions[new_id] = successor

    @precondition(has_sessions)
    @rule(which=ANY)
    def archive(self, which: int) -> None:
        session_id, session = self._session(which)
        refusal = Refusal(409, "not_archivable") if session.is_live else None
        archived = self._agrees(self.api.post(f"/api/sessions/{session_id}/archive"), refusal)
        if refusal is None:
            session.archived = True
            session.metadata |= {"archived": True, "archived_at": archived["archived_at"]}

    @precondition(has_sessions)
    @rule(which=ANY)
    def delete_session(self, which: int) -> None:
        session_id, session = self._session(which)
        self._agrees(self.api.delete(f"/api/sessions/{session_id}"), None, 204)
        self.gone += [session_id, *session.tasks]
        del self.world.sessions[session_id]
        self.world.release(session_id)

    @rule(which=ANY, verb=st.sampled_from(["GET", "PATCH", "DELETE"]))
    def nothing_is_left_of_what_is_gone(self, which: int, verb: str) -> None:
        gone = self.gone[which % len(self.gone)]
        body = {"metadata": {"a": 1}} if verb == "PATCH" else None
        for kind in ("session", "task"):
            reply = self.api.request(verb, f"/api/{kind}s/{gone}", json=body)
            self._agrees(reply, Refusal(404, f"{kind}_not_found"))

    # Tasks

    @precondition(has_sessions)
    @rule(which=ANY)
    def create_task(self, which: int) -> None:
        session_id, session = self._session(which)
        refusal = _refusal(session.require_writable)
        body = {"session_id": session_id, "project_id": session.place.project, "task_name": "t"}
        created = self._agrees(self.api.post("/api/tasks", json=body), refusal, 201)
        if refusal is None:
            session.tasks[created["task_id"]] = Task()

    @precondition(has_sessions)
    @rule(which=ANY, status=st.sampled_from(sorted(TASK_MOVES)))
    def move_task(self, which: int, status: str) -> None:
        found = self._task(which)
        if found is None:
            return
        task_id, session, task = found
        same = status == task.status and status not in ("completed", "failed")

        def check() -> None:
            session.require_writable()
            if not same and status not in TASK_MOVES[task.status]:
                raise Refusal(409, "invalid_transition")

        refusal = _refusal(check)
        body = {"status": status, **({"error_message": "why"} if status == "failed" else {})}
        self._agrees(self.api.patch(f"/api/tasks/{task_id}", json=body), refusal)
        if refusal is not None or same:
            return
        task.status = status
        if status == "in_progress":
            session.current_task = task_id
        elif status in ("completed", "failed"):
            session.forget(task_id)

    @precondition(has_sessions)
    @rule(which=ANY)
    def delete_task(self, which: int) -> None:
        found = self._task(which)
        if found is None:
            return
        task_id, session, _ = found
        refusal = _refusal(session.require_not_recovered)
        self._agrees(self.api.delete(f"/api/tasks/{task_id}"), refusal, 204)
        if refusal is None:
            session.forget(task_id)
            del session.tasks[task_id]
            self.gone.append(task_id)

    # Machines

    @rule(machine=MACHINES, slots=st.sets(st.integers(1, 2)))
    def register_machine(self, machine: str, slots: set[int]) -> None:
        known = self.world.machines.get(machine)
        body = {"machine_id": machine, "hostname": "odin", "docker_slots": sorted(slots)}
        self._agrees(self.api.post("/api/machines", json=body), None, 200 if known else 201)
        known = self.world.machines.setdefault(machine, Machine(None))
        known.slots = sorted(slots)
        if known.status == "offline":
            known.status = "online"

    @rule(machine=MACHINES, status=st.sampled_from(["online", "offline", "maintenance"]))
    def patch_machine(self, machine: str, status: str) -> None:
        known = self.world.machines.get(machine)
        refusal = None if known else Refusal(404, "machine_not_found")
        self._agrees(self.api.patch(f"/api/machines/{machine}", json={"status": status}), refusal)
        if known:
            known.status = status

    @rule(machine=MACHINES)
    def beat_machine(self, machine: str) -> None:
        known = self.world.machines.get(machine)
        refusal = None if known else Refusal(404, "machine_not_found")
        self._agrees(self.api.post(f"/api/machines/{machine}/heartbeat"), refusal)
        if known and known.status == "offline":
            known.status = "online"

    # What is seen

    @invariant()
    def sessions_agree(self) -> None:
        listed = ok(self.api.get("/api/sessions", params={"limit": 100}))
        seen = {
            row["session_id"]: (
                row["project_id"],
                row["machine_id"],
                row["docker_slot"],
                row["status"],
                row["outcome"],
                row["current_task_id"],
                row["recovered_from"],
                row["recovered_to"],
                row["superseded_by"],
                row["archived"],
                row["completed_at"] is None,
                row["metadata"],
            )
            for row in reversed(listed["sessions"])
        }
        expected = {
            session_id: (
                session.place.project,
                session.machine,
                session.place.slot,
                session.status,
                session.outcome,
                session.current_task,
                session.recovered_from,
                session.recovered_to,
                session.superseded_by,
                session.archived,
                session.is_live,
                session.metadata,
            )
            for session_id, session in self.world.sessions.items()
        }
        assert seen == expected
        assert list(seen) == list(expected)

    @invariant()
    def tasks_agree(self) -> None:
        listed = ok(self.api.get("/api/tasks", params={"limit": 200}))
        seen = {
            row["task_id"]: (row["session_id"], row["status"], row["carried_from"])
            for row in listed["tasks"]
        }
        assert seen == {
            task_id: (session_id, task.status, task.carried_from)
            for session_id, session in self.world.sessions.items()
            for task_id, task in session.tasks.items()
        }

    @invariant()
    def machines_agree(self) -> None:
        seen = {
            row["machine_id"]: (row["status"], row["docker_slots"], row["active_sessions"])
            for row in ok(self.api.get("/api/machines"))["machines"]
        }
        assert seen == {
            machine_id: (
                machine.status,
                machine.slots or [],
                [
                    session_id
                    for session_id, session in self.world.sessions.items()
                    if session.machine == machine_id and session.is_live
                ],
            )
            for machine_id, machine in self.world.machines.items()
        }

    @invariant()
    def counts_agree(self) -> None:
        health = ok(self.api.get("/api/sessions/health"))
        statuses = [session.status for session in self.world.sessions.values()]
        assert health["total_sessions"] == len(statuses)
        for status in ("active", "paused", "stalled", "failed", "completed"):
            assert health[f"{status}_sessions"] == statuses.count(status)


def _refusal(check: object) -> Refusal | None:
    assert callable(check)
    try:
        check()
    except Refusal as refusal:
        return refusal
    return None


@pytest.fixture(scope="module")
def server(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server that all examples ask, each in a namespace of its own."""
    directory = tmp_path_factory.mktemp("server")
    with (
        cloned(cluster, template) as url,
        CommonServer(url, directory) as running,
    ):
        yield running


def test_the_api_does_what_the_model_does(server: Server) -> None:
    """Given any sequence of requests, then every reply and all that can be seen is the model's."""
    ApiMachine.server = server
    run_state_machine_as_test(
        ApiMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            # Explaining a failure asks the server for minutes on end; shrinking it is enough.
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_client_has_its_own_world(server: Server) -> None:
    """The model rests on it: what a client is handed, nobody has used."""
    with server.world() as one, server.world() as two:
        assert isinstance(one, Api)
        assert one.namespace != two.namespace
        assert ok(one.get("/api/sessions/health"))["total_sessions"] == 0
