"""What a person with many agents running should look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from holdfast.cli.show.words import length, plural
from holdfast.cli.text import safe

Json = Mapping[str, Any]

# Who failed earlier than this was seen to, or never will be.
RECENTLY = timedelta(days=1)
# As many characters of a session's id are enough to type.
SHORT = 8


class Matter(NamedTuple):
    """Something that needs a person: how urgent (a style), what it is and what can be done."""

    style: str
    what: str
    advice: str | None = None


def matters(found: Json) -> list[Matter]:
    """All that needs attention in an overview, the most urgent first."""
    now = _time(found["counts"]["last_updated"])
    every = [
        *_sessions(found["sessions"]),
        *_failed(found["failed_sessions"], now),
        *_instances(found["instances"]),
    ]
    return sorted(every, key=lambda matter: URGENCY.index(matter.style))


URGENCY = ("red", "magenta", "yellow")


def _sessions(sessions: Sequence[Json]) -> Iterator[Matter]:
    for session in sessions:
        if session["status"] != "stalled":
            continue
        held = session["held_items"]
        holds = f", holds {', '.join(map(safe, held))}" if held else ""
        silent = length(session["heartbeat_age_seconds"])
        yield Matter(
            "red", f"{_named(session)} is stalled: silent for {silent}{holds}", _recover(session)
        )


def _failed(sessions: Sequence[Json], now: datetime) -> Iterator[Matter]:
    for session in sessions:
        ended = _time(session["completed_at"] or session["updated_at"])
        if now - ended > RECENTLY:
            continue
        reason = session["metadata"].get("error_message")
        why = f": {safe(reason)}" if reason else ""
        ago = length((now - ended).total_seconds())
        yield Matter("red", f"{_named(session)} failed {ago} ago{why}", _recover(session))


def _instances(instances: Sequence[Json]) -> Iterator[Matter]:
    there = {instance["instance_id"] for instance in instances}
    for instance in instances:
        name = instance["instance_id"]
        if instance["status"] == "stale":
            silent = length(instance["age_seconds"])
            again = (
                f"; restarted {plural(instance['restarts'], 'time')}"
                if instance["restarts"]
                else ""
            )
            yield Matter(
                "red", f"{name} is stale: silent for {silent}{again}", f"holdfast resume {name}"
            )
        elif instance["activity"] == "waiting_for_human":
            reason = instance["activity_reason"]
            yield Matter("magenta", f"{name} waits for you{f': {safe(reason)}' if reason else ''}")
        if instance["health"] == "degraded":
            reasons = "; ".join(map(safe, instance.get("health_reasons", [])))
            yield Matter("yellow", f"{name} is degraded: {reasons}")
        if instance["parent_id"] and instance["parent_id"] not in there:
            yield Matter("yellow", f"{name} is an orphan: {safe(instance['parent_id'])} is closed")


def _named(session: Json) -> str:
    where = f" on {safe(session['machine_id'])}" if session["machine_id"] else ""
    return f"session {session['session_id'][:SHORT]} ({safe(session['project_id'])}{where})"


def _recover(session: Json) -> str:
    return f"holdfast recover {session['session_id'][:SHORT]} --onto MACHINE"


def _time(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
