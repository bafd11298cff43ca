"""Instances and what they record, as the service's own commands would have left it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import cycle

from bench.history import Writer
from domain.aggregate import Json
from domain.instances.instance import Instance

PER_PROJECT = 100
# Odd, so that no two numbers below 16^6 have one hash.
_SCATTER = 0x9E3779B1

# A turn of an agent's work, as its hooks record it.
TURN: tuple[tuple[str, Json], ...] = (
    ("epic_started", {"epic_id": "epic-003", "feature_name": "payments", "estimated_hours": 4}),
    ("command_logged", {"command": "pytest -q tests/payments", "exit_code": 0, "duration_ms": 812}),
    (
        "commit_created",
        {"commit": "8f4a2b9c", "message": "Refuse what is overdrawn", "files_changed": 7},
    ),
    (
        "test_passed",
        {"epic_id": "epic-003", "passed_count": 45, "failed_count": 3, "coverage_percent": 92.5},
    ),
    ("context_window_updated", {"context_percent": 41.5, "tokens_used": 83_000}),
    ("epic_completed", {"epic_id": "epic-003", "duration_hours": 3.5, "files_changed": 23}),
)
# What an agent says of itself with a heartbeat.
SAID: Json = {
    "context_percent": 41.5,
    "current_epic": "epic-003",
    "activity": "working",
    "git": {"branch": "payments", "head": "8f4a2b9c", "dirty_files": 3, "unpushed_commits": 1},
    "metrics": {
        "active_tasks": 2,
        "queue_depth": 0,
        "response_time_ms": 350,
        "error_rate": 0.01,
    },
}


def project(number: int) -> str:
    """The project of the bench's instance of this number."""
    return f"project-{number // PER_PROJECT}"


def short_hash(number: int) -> str:
    """The hash of its id, like one that was drawn."""
    return f"{number * _SCATTER % 16**6:06x}"


def instance_id(number: int) -> str:
    """Its id, the same in every server."""
    return f"{project(number)}-PS-{short_hash(number)}"


def register(writer: Writer, number: int, at: datetime) -> Instance:
    """The instance, as ``POST /api/instances`` leaves it."""
    made = Instance(id=Instance.stream_id(instance_id(number)))
    made.register(
        at,
        project=project(number),
        project_name=project(number),
        instance_type="PS",
        scope="project",
        hostname=f"machine-{number // PER_PROJECT}",
        tty=f"/dev/pts/{number % PER_PROJECT}",
        codebase=f"/home/agent/{project(number)}",
    )
    writer.keep("instance_register", made)
    return made


def turns() -> Iterator[tuple[str, Json]]:
    """Work without end."""
    return cycle(TURN)


def record(writer: Writer, instance: Instance, events: list[tuple[datetime, str, Json]]) -> None:
    """Let an instance record work, each event as ``POST …/events`` leaves it."""
    for at, event_type, data in events:
        instance.record_work(at, event_type, data)
        writer.keep("event_emit", instance)
