"""One worker: a real process with a session of its own, as an agent would be.

    python -m demo.worker PROJECT MACHINE            begins a project's work
    python -m demo.worker PROJECT MACHINE SESSION    carries on what another's session left

Each task searches a block of numbers for the one with the smallest hash, and writes it to a file.
What happens is told on standard output, a JSON object a line; the service and the folder for
results are found in the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

TASKS = 7
BLOCK = 300_000
STEP = 10_000
# Leaves room for the others on a small machine.
REST_SECONDS = 0.05
BEAT_SECONDS = 0.5

Json = dict[str, Any]


class Service:
    """What a worker says to the service."""

    def __init__(self) -> None:
        self._http = httpx.Client(
            base_url=os.environ["HOLDFAST_URL"],
            headers={"X-API-Key": os.environ["HOLDFAST_API_KEY"]},
            trust_env=False,
        )

    def get(self, path: str, **parameters: str) -> Json:
        return self._said(self._http.get(path, params=parameters))

    def post(self, path: str, **body: object) -> Json:
        return self._said(self._http.post(path, json=body))

    def patch(self, path: str, **body: object) -> Json:
        return self._said(self._http.patch(path, json=body))

    def _said(self, reply: httpx.Response) -> Json:
        reply.raise_for_status()
        value: Json = reply.json()
        return value


def main(project: str, machine: str, predecessor: str | None = None) -> None:
    """Work until all is done."""
    service = Service()
    if predecessor is None:
        session = begin(service, project, machine)
    else:
        session = carry_on(service, machine, predecessor)
    session_id = session["session_id"]
    threading.Thread(target=beat, args=[Service(), session_id], daemon=True).start()
    for task in service.get("/api/tasks", session_id=session_id)["tasks"]:
        path = f"/api/tasks/{task['task_id']}"
        service.patch(path, status="in_progress")
        result = search(task["metadata"]["from"], task["metadata"]["to"])
        file = Path(os.environ["DEMO_RESULTS"]) / f"{project}-{task['metadata']['block']}.json"
        file.write_text(json.dumps(result))
        service.patch(path, status="completed", metadata=result)
        tell("completed", session_id=session_id, task_id=task["task_id"], task=task["task_name"])
    service.patch(f"/api/sessions/{session_id}", status="completed")
    tell("finished", session_id=session_id)


def begin(service: Service, project: str, machine: str) -> Json:
    """Open a session, and plan all of its tasks."""
    session = service.post("/api/sessions", project_id=project, machine_id=machine)
    for block in range(1, TASKS + 1):
        service.post(
            "/api/tasks",
            session_id=session["session_id"],
            project_id=project,
            task_name=f"search block {block}",
            metadata={"block": block, "from": (block - 1) * BLOCK, "to": block * BLOCK},
        )
    tell("began", session_id=session["session_id"], tasks=TASKS)
    return session


def carry_on(service: Service, machine: str, predecessor: str) -> Json:
    """Read what there is to know of a session that broke off, and take its work over."""
    path = f"/api/sessions/{predecessor}"
    tell("brief", brief=service.get(f"{path}/recovery-state")["brief"])
    session = service.post(f"{path}/recover", new_machine_id=machine)
    left = service.get("/api/tasks", session_id=session["session_id"])["total_count"]
    tell("recovered", session_id=session["session_id"], predecessor=predecessor, tasks=left)
    return session


def beat(service: Service, session_id: str) -> None:
    """Say that we live, for as long as we do."""
    while True:
        time.sleep(BEAT_SECONDS)
        try:
            service.post(f"/api/sessions/{session_id}/heartbeat")
        except httpx.HTTPError:
            return  # the session is over


def search(first: int, end: int) -> Json:
    """The number of a block whose hash is the smallest."""
    best = first
    for start in range(first, end, STEP):
        best = min(best, *range(start, min(start + STEP, end)), key=digest)
        time.sleep(REST_SECONDS)
    return {"number": best, "digest": digest(best)}


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def tell(what: str, **facts: object) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
