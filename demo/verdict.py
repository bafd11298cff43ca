"""What came of it, read from the service: the summary, and what is not as it should be."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from demo.screen import short
from demo.story import FLEET, REFUGE, Tour
from demo.worker import TASKS, digest

Json = dict[str, Any]


def summary(tour: Tour) -> tuple[Table, list[str]]:
    """The summary, and every fault that was found."""
    [victim] = [s for s in tour.sessions.values() if s["outcome"] == "recovered"]
    heir = tour.get(f"/api/sessions/{victim['recovered_to']}")
    done = _done(tour)
    faults = [*_of_sessions(tour, victim, heir), *_of_tasks(tour, done), *_of_results(tour, done)]
    table = Table(title="What happened", show_header=False, title_justify="left")
    for name, value in (
        (
            "killed",
            f"session {short(victim['session_id'])} on {victim['machine_id']},"
            f" in the middle of “{tour.interrupted}”",
        ),
        ("found stalled after", f"{tour.found_after:.1f} s of silence"),
        ("recovered onto", f"{heir['machine_id']}, as session {short(heir['session_id'])}"),
        ("tasks finished", f"{len(done)} of {len(FLEET) * TASKS}"),
        ("events recorded", f"{_events(tour):,}"),
        ("lost", "[bold red]see below[/]" if faults else "[bold green]nothing[/]"),
    ):
        table.add_row(name, value)
    return table, faults


def _done(tour: Tour) -> dict[tuple[str, str], Json]:
    """The completed tasks by project and name, whichever session completed them."""
    tasks = tour.get("/api/tasks", status="completed", limit=200)["tasks"]
    return {(task["project_id"], task["task_name"]): task for task in tasks}


def _of_sessions(tour: Tour, victim: Json, heir: Json) -> list[str]:
    faults = [
        f"session {session['session_id']} is {session['status']}"
        for session in tour.sessions.values()
        if session["status"] != "completed"
    ]
    if (heir["recovered_from"], heir["machine_id"]) != (victim["session_id"], REFUGE):
        faults.append("the successor does not say what it carries on")
    return faults


def _of_tasks(tour: Tour, done: dict[tuple[str, str], Json]) -> list[str]:
    faults = []
    for project, _ in FLEET:
        missing = TASKS - sum(of == project for of, _ in done)
        if missing:
            faults.append(f"{missing} tasks of {project} are not completed")
    for task_id in tour.acknowledged:
        if tour.get(f"/api/tasks/{task_id}")["status"] != "completed":
            faults.append(f"task {task_id} was acknowledged as completed, and is not")
    return faults


def _of_results(tour: Tour, done: dict[tuple[str, str], Json]) -> list[str]:
    faults = []
    for (project, name), task in done.items():
        result = {key: task["metadata"].get(key) for key in ("number", "digest")}
        file = tour.service.results / f"{project}-{task['metadata']['block']}.json"
        if result["digest"] != digest(result["number"]) or result != json.loads(file.read_text()):
            faults.append(f"the result of {project}, {name}, is not the one that was found")
    return faults


def _events(tour: Tour) -> int:
    """The position of the last event, as a sweep with nothing to do tells it."""
    reply = tour.http.post("/api/sessions/detect-failures")
    return int(reply.raise_for_status().headers["X-Event-Position"])
