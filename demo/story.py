"""The story: a fleet at work, one worker killed, its work carried on elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from rich.markup import escape

from demo.fleet import STALL_SECONDS, Service, Worker
from demo.screen import Screen, short

FLEET = (("aurora", "atlas"), ("basalt", "atlas"), ("cobalt", "borealis"), ("dune", "cygnus"))
VICTIM = "cobalt"
REFUGE = "cygnus"
# The victim dies in the middle of the task after these.
DONE_BEFORE = 2
# No kill falls at the very beginning of a task.
INTO_TASK = timedelta(seconds=0.5)
PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.2

Json = dict[str, Any]


class Amiss(Exception):
    """The tour did not go as it should."""


@dataclass
class Tour:
    """The story, step by step, and what is remembered of it for the end."""

    service: Service
    screen: Screen
    http: httpx.Client
    workers: list[Worker] = field(default_factory=list)
    # Every completed task that a worker was told is stored.
    acknowledged: list[str] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    sessions: dict[str, Json] = field(default_factory=dict)
    tasks: dict[str, list[Json]] = field(default_factory=dict)
    found_after: float = 0.0
    interrupted: str = ""

    def get(self, path: str, **parameters: object) -> Json:
        """What the service answers."""
        reply = self.http.get(path, params={k: str(v) for k, v in parameters.items()})
        value: Json = reply.raise_for_status().json()
        return value

    def go(self) -> None:
        """From the first session to the last task."""
        self.screen.say(f"The service is up at [bold]{self.service.url}[/]")
        for project, machine in FLEET:
            self._start(project, machine)
        victim = next(worker for worker in self.workers if worker.project == VICTIM)
        self._until(lambda: self._is_mid_task(victim), "a task to be interrupted")
        victim.kill()
        session_id = victim.session_id
        assert session_id is not None
        self.interrupted = self._current_task(session_id)
        self.screen.say(
            f"[bold red]SIGKILL[/] to worker {victim.pid} on [bold]{victim.machine}[/],"
            f" in the middle of “{self.interrupted}”"
        )
        self._until(lambda: self._is_noted(session_id), "the service to notice")
        session = self.sessions[session_id]
        self.found_after = (
            _time(session["updated_at"]) - _time(session["last_heartbeat"])
        ).total_seconds()
        self.screen.say(
            f"[bold red]Stalled[/]: the service's sweep found session {short(session_id)}"
            f" silent for {self.found_after:.1f} s"
        )
        self._start(VICTIM, REFUGE, session_id)
        self._until(lambda: len(self.finished) == len(FLEET), "all tasks to be done")

    def stop(self) -> None:
        """See to it that no worker is left."""
        for worker in self.workers:
            worker.stop()

    def _start(self, project: str, machine: str, predecessor: str | None = None) -> None:
        self.workers.append(Worker(self.service, project, machine, predecessor))

    # What happens meanwhile

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise Amiss(f"waited {PATIENCE_SECONDS:g} s for {what}")
            self._look()
            time.sleep(LOOK_SECONDS)
        self._look()

    def _look(self) -> None:
        for worker in self.workers:
            while not worker.told.empty():
                self._hear(worker, worker.told.get())
            if worker.failure:
                raise Amiss(f"the worker of {worker.project} failed:\n{worker.failure}")
        found = self.get("/api/sessions", limit=100)["sessions"]
        self.sessions = {session["session_id"]: session for session in reversed(found)}
        tasks = defaultdict(list)
        for task in self.get("/api/tasks", limit=200)["tasks"]:
            tasks[task["session_id"]].append(task)
        self.tasks = tasks
        ages = {
            session["session_id"]: session["heartbeat_age_seconds"]
            for session in self.get("/api/sessions/active", limit=100)["sessions"]
        }
        self.screen.show(list(self.sessions.values()), tasks, ages)

    def _hear(self, worker: Worker, told: Json) -> None:
        where = f"on [bold]{worker.machine}[/]"
        match told["what"]:
            case "began":
                worker.session_id = told["session_id"]
                self.screen.say(
                    f"Worker {worker.pid} {where} opened session {short(told['session_id'])}"
                    f" of {worker.project}, with {told['tasks']} tasks"
                )
            case "brief":
                self.screen.say(
                    f"Worker {worker.pid} {where} reads: [italic]{escape(told['brief'])}[/]"
                )
            case "recovered":
                worker.session_id = told["session_id"]
                self.screen.say(
                    f"[bold magenta]Recovered[/]: session {short(told['session_id'])} {where}"
                    f" carries on {short(told['predecessor'])}, with {told['tasks']} tasks left"
                )
            case "completed":
                self.acknowledged.append(told["task_id"])
            case "finished":
                self.finished.add(worker.project)
                self.screen.say(f"[green]Finished[/]: {worker.project}, {where}")

    def _is_mid_task(self, worker: Worker) -> bool:
        if worker.session_id not in self.sessions:
            return False
        tasks = self.tasks[worker.session_id]
        current = [task for task in tasks if task["status"] == "in_progress"]
        beaten = _time(self.sessions[worker.session_id]["last_heartbeat"])
        done = sum(task["status"] == "completed" for task in tasks)
        return (
            done >= DONE_BEFORE
            and bool(current)
            and beaten > _time(current[0]["started_at"]) + INTO_TASK
        )

    def _current_task(self, session_id: str) -> str:
        self._look()
        [task] = [t for t in self.tasks[session_id] if t["status"] == "in_progress"]
        return str(task["task_name"])

    def _is_noted(self, session_id: str) -> bool:
        """Every read says ``stalled`` past the threshold; this is when it became an event."""
        session = self.sessions[session_id]
        silent = _time(session["updated_at"]) - _time(session["last_heartbeat"])
        return session["status"] == "stalled" and silent > timedelta(seconds=STALL_SECONDS)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
