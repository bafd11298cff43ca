"""Clients that write over HTTP whatever happens, and note what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx

from tests.crash.ledger import Entry, Ledger, Outcome

API_KEY = "a-key-for-the-crash-test"
# A keyed write is sent until it is answered; this long without an answer is a finding.
PATIENCE_SECONDS = 60.0
TIMEOUT_SECONDS = 10.0
BACKOFF_SECONDS = 0.05
UNSURE = frozenset({503, 504})
# Refusals after which there is no more to be done with a session.
OVER = frozenset({"session_ended", "superseded", "session_not_found", "unknown_session"})

PROJECTS = ("apollo", "gemini", "mercury/7")
MACHINES = ("m1", "m2", "m3")
# So few that clients meet, and so many that not all are done before the end.
ITEMS = tuple(f"item-{number}" for number in range(60))
# What clients know of, at most: old sessions make room for those that others still work on.
KNOWN = 40

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A request that is to change something, and what is to be found of it afterwards."""

    command: str
    path: str
    body: Json
    method: str = "POST"
    stream: str | None = None
    effects: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    mark: str | None = None
    key: str | None = None


@dataclass(slots=True)
class World:
    """What all clients know, and how far they have come."""

    urls: Sequence[str]
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    sessions: list[tuple[str, str]] = field(default_factory=list)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def remember(self, what: Literal["sessions", "tasks", "ended"], thing: Any) -> None:
        with self.lock:
            things = getattr(self, what)
            things.append(thing)
            del things[:-KNOWN]

    def forget(self, session_id: str) -> None:
        with self.lock:
            self.sessions = [known for known in self.sessions if known[0] != session_id]
            self.tasks = [known for known in self.tasks if known[1] != session_id]

    def count(self, *names: str) -> None:
        with self.lock:
            self.counts.update(names)


class Client(threading.Thread):
    """One client: writes something, notes the outcome, goes on to the next."""

    def __init__(self, world: World, seed: str, ledgers: Path) -> None:
        super().__init__(name=f"client-{seed}")
        self.error: BaseException | None = None
        self._world = world
        self._random = random.Random(seed)
        self._ledger_path = ledgers / f"{seed.replace('/', '-')}.ledger"

    def run(self) -> None:
        try:
            with Ledger(self._ledger_path) as ledger, self._connections() as http:
                while not self._world.stopping.is_set():
                    write = self._something()
                    if self._random.random() < 0.6:
                        write = replace(write, key=str(uuid4()))
                    entry = self._send(http, write)
                    ledger.note(entry)
                    self._world.count(entry.outcome, *(["retried"] if entry.attempts > 1 else []))
        except Exception as e:
            self.error = e

    def _connections(self) -> httpx.Client:
        return httpx.Client(
            timeout=TIMEOUT_SECONDS, headers={"X-API-Key": API_KEY}, trust_env=False
        )

    # Sending

    def _send(self, http: httpx.Client, write: Write) -> Entry:
        headers = {} if write.key is None else {"Idempotency-Key": write.key}
        deadline = time.monotonic() + PATIENCE_SECONDS
        attempts = 0
        while True:
            attempts += 1
            # Either process will do; which one is gone the client cannot know.
            url = self._random.choice(self._world.urls) + write.path
            try:
                reply = http.request(write.method, url, json=write.body, headers=headers)
            except httpx.TransportError:
                reply = None
            if reply is not None and reply.status_code not in UNSURE:
                return self._answered(write, reply, attempts)
            if write.key is None or time.monotonic() > deadline:
                return _entry(write, "unknown", attempts)
            time.sleep(BACKOFF_SECONDS * self._random.random())

    def _answered(self, write: Write, reply: httpx.Response, attempts: int) -> Entry:
        value = reply.json() if reply.content else {}
        outcome: Outcome = "acknowledged"
        if not reply.is_success:
            outcome = "refused" if reply.is_client_error else "broken"
            write = replace(write, effects=())
            if value["code"] in OVER and write.stream is not None:
                session_id = write.body.get("session_id") or write.stream.removeprefix("session-")
                self._world.forget(session_id)
        else:
            write = self._learned(write, reply.status_code, value)
        return replace(
            _entry(write, outcome, attempts),
            status=reply.status_code,
            code=value.get("code"),
            request_id=reply.headers["X-Request-Id"],
            position=int(reply.headers["X-Event-Position"]) if reply.is_success else None,
        )

    def _learned(self, write: Write, status: int, value: Json) -> Write:
        """What an acknowledgement tells: names of new things, and what to look for."""
        world = self._world
        match write.command:
            case "session_create":
                session_id = value["session_id"]
                world.remember("sessions", (session_id, value["project_id"]))
                return replace(write, stream=f"session-{session_id}")
            case "session_recover":
                successor = value["session_id"]
                world.remember("sessions", (successor, value["project_id"]))
                # 200: somebody else had recovered it, and this is the same successor.
                effects = write.effects if status == 201 else ()
                return replace(write, effects=effects, facts={"recovered_to": successor})
            case "session_mark_failed":
                world.remember("ended", value["session_id"])
            case "claim_item" if status == 200:
                return replace(write, effects=())  # held already: nothing was to do
            case "task_create":
                world.remember("tasks", (value["task_id"], value["session_id"]))
                return replace(write, facts={**write.facts, "task_id": value["task_id"]})
        return write

    # Something to write

    def _something(self) -> Write:
        choose = self._random.choice
        with self._world.lock:
            session = choose(self._world.sessions) if self._world.sessions else None
            task = choose(self._world.tasks) if self._world.tasks else None
            ended = choose(self._world.ended) if self._world.ended else None
        lot = self._random.random()
        if session is None or lot < 0.10:
            return self._create()
        if lot < 0.22:
            return self._machine()
        if lot < 0.24 and ended is not None:
            return self._recover(ended)
        if lot < 0.50 and task is not None:
            return self._move(*task)
        session_id, project_id = session
        if lot < 0.65:
            return self._add_task(session_id, project_id)
        if lot < 0.74:
            return self._change(session_id)
        if lot < 0.86:
            return self._work(session_id)
        return self._beat(session_id)

    def _create(self) -> Write:
        place = {
            "project_id": self._random.choice(PROJECTS),
            "machine_id": self._random.choice(MACHINES),
        }
        return Write(
            command="session_create",
            path="/api/sessions",
            body={
                **place,
                "docker_slot": self._random.choice([None, None, 0, 1]),
                "replace": self._random.random() < 0.3,
                "metadata": (mark := _marked()),
            },
            effects=("session_created",),
            facts=place,
            mark=mark["mark"],
        )

    def _beat(self, session_id: str) -> Write:
        # Without a payload it is stored and projected another way.
        mark = _marked() if self._random.random() < 0.5 else None
        return Write(
            command="session_heartbeat",
            path=f"/api/sessions/{session_id}/heartbeat",
            body={"metadata": mark} if mark else {},
            stream=f"session-{session_id}",
            effects=("session_heartbeat",),
            mark=mark["mark"] if mark else None,
        )

    def _change(self, session_id: str) -> Write:
        path = f"/api/sessions/{session_id}"
        stream = f"session-{session_id}"
        match self._random.choice(["update"] * 4 + ["fail", "fail", "stall", "recover", "end"]):
            case "fail":
                return Write(
                    command="session_mark_failed",
                    path=f"{path}/mark-failed",
                    body={"error_message": "out of memory", "metadata": (mark := _marked())},
                    stream=stream,
                    effects=("session_failed",),
                    mark=mark["mark"],
                )
            case "stall":  # nothing to do when the sweep was first
                return Write(
                    command="session_mark_stalled",
                    path=f"{path}/mark-stalled",
                    body={},
                    stream=stream,
                )
            case "recover":
                return self._recover(session_id)
            case "end" if self._random.random() < 0.2:
                return Write(
                    command="session_delete",
                    method="DELETE",
                    path=path,
                    body={},
                    stream=stream,
                    effects=("session_deleted",),
                )
        status = self._random.choice([None, "active", "active", "paused", "completed"])
        return Write(
            command="session_update",
            method="PATCH",
            path=path,
            body={**({"status": status} if status else {}), "metadata": (mark := _marked())},
            stream=stream,
            effects=("session_updated",),
            mark=mark["mark"],
        )

    def _work(self, session_id: str) -> Write:
        item_id = self._random.choice(ITEMS)
        stream = f"claim-{item_id}"
        match self._random.choice(["claim"] * 5 + ["release", "complete"]):
            case "claim":
                return Write(
                    command="claim_item",
                    path="/api/claims",
                    body={
                        "item_id": item_id,
                        "session_id": session_id,
                        "takeover": self._random.random() < 0.5,
                    },
                    effects=("claim_granted", "claim_taken_over"),
                    facts={"holder_id": session_id},
                    stream=stream,
                )
            case "release":
                return Write(
                    command="claim_release",
                    path=f"/api/claims/{item_id}/release",
                    body={"session_id": session_id},
                    effects=("claim_released",),
                    facts={"holder_id": session_id},
                    stream=stream,
                )
        return Write(
            command="work_item_complete",
            path=f"/api/work-items/{item_id}/complete",
            body={"session_id": session_id},
            effects=("work_item_completed",),
            facts={"completed_by": session_id},
            stream=stream,
        )

    def _recover(self, session_id: str) -> Write:
        return Write(
            command="session_recover",
            path=f"/api/sessions/{session_id}/recover",
            body={
                "new_machine_id": self._random.choice(MACHINES),
                "docker_slot": self._random.choice([None, 0, 1, 2]),
            },
            stream=f"session-{session_id}",
            effects=("session_recovered",),
        )

    def _add_task(self, session_id: str, project_id: str) -> Write:
        return Write(
            command="task_create",
            path="/api/tasks",
            body={
                "session_id": session_id,
                "project_id": project_id,
                "task_name": "compile",
                "metadata": (mark := _marked()),
            },
            stream=f"session-{session_id}",
            effects=("task_created",),
            facts={"task_name": "compile"},
            mark=mark["mark"],
        )

    def _move(self, task_id: str, session_id: str) -> Write:
        status, effects = self._random.choice(
            [
                # A status given again only annotates.
                ("in_progress", ("task_started", "task_updated")),
                ("in_progress", ("task_started", "task_updated")),
                ("completed", ("task_completed",)),
                ("failed", ("task_failed",)),
                ("blocked", ("task_blocked", "task_updated")),
                (None, ("task_updated",)),
            ]
        )
        body: Json = {"metadata": (mark := _marked())}
        if status is not None:
            body["status"] = status
        if status == "failed":
            body["error_message"] = "no compiler"
        return Write(
            command="task_update",
            method="PATCH",
            path=f"/api/tasks/{task_id}",
            body=body,
            stream=f"session-{session_id}",
            effects=effects,
            facts={"task_id": task_id},
            mark=mark["mark"],
        )

    def _machine(self) -> Write:
        machine_id = self._random.choice(MACHINES)
        mark = _marked()
        stream = f"machine-{machine_id}"
        if self._random.random() < 0.1:
            return Write(
                command="machine_register",
                path="/api/machines",
                body={
                    "machine_id": machine_id,
                    "hostname": f"{machine_id}.example",
                    "docker_slots": [0, 1, 2],
                    "metadata": mark,
                },
                stream=stream,
                effects=("machine_registered", "machine_updated"),
                mark=mark["mark"],
            )
        return Write(
            command="machine_heartbeat",
            path=f"/api/machines/{machine_id}/heartbeat",
            body={"metadata": mark},
            stream=stream,
            effects=("machine_heartbeat",),
            mark=mark["mark"],
        )


def _marked() -> dict[str, str]:
    return {"mark": str(uuid4())}


def _entry(write: Write, outcome: Outcome, attempts: int) -> Entry:
    return Entry(
        command=write.command,
        method=write.method,
        path=write.path,
        outcome=outcome,
        attempts=attempts,
        key=write.key,
        mark=write.mark,
        stream=write.stream,
        effects=write.effects,
        facts=write.facts,
    )
