"""Finds what a person should look at first in the overview."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from holdfast import moments
from holdfast.cli.show.words import length, plural
from holdfast.cli.text import safe
from holdfast.lost_work import WITHOUT_SESSION, told

Json = Mapping[str, Any]

# Who failed earlier than this is but counted, and after a day not even that: it was seen to, or
# never will be.
RECENTLY = timedelta(hours=1)
LATELY = timedelta(days=1)
NAMED_FAILURES = 5
# As many characters of a session's id are enough to type.
SHORT = 8


class Matter(NamedTuple):
    """Something that needs a person: its urgency, its style, what it is, and what to do."""

    urgency: int
    style: str
    what: str
    advice: str | None = None


# Somebody waits; what others wait for stands still; something is broken; something is not well.
WAITS, HELD, BROKEN, UNWELL, PAST = range(5)


def matters(found: Json) -> list[Matter]:
    """All that needs attention in the overview, the most urgent first.

    A session and the instance that works in it are one.
    """
    now = _time(found["counts"]["last_updated"])
    # What a session whose place another has left behind was carried on there.
    failed = [
        (session, _ended_ago(session, now))
        for session in found["failed_sessions"]
        if session.get("outcome") != "superseded"
    ]
    sessions = [
        *_stalled(found["sessions"]),
        *((s, _failed(s, ago)) for s, ago in failed if ago <= RECENTLY),
    ]
    instances = dict(_instances(found["instances"]))
    every = [_with(matter, instances.pop(_worker(s) or "", None)) for s, matter in sessions]
    every += instances.values()
    if before := [session for session, ago in failed if RECENTLY < ago <= LATELY]:
        every.append(_failed_before(before))
    return sorted(every, key=lambda matter: matter.urgency)


def _with(session: Matter, instance: Matter | None) -> Matter:
    # That its instance is silent too says nothing more.
    if instance is None or instance.urgency == BROKEN:
        return session
    first = min(session, instance, key=lambda matter: matter.urgency)
    what = f"{session.what}; its instance {instance.what}"
    return Matter(first.urgency, first.style, what, session.advice)


def _worker(session: Json) -> str | None:
    """The instance that works in a session."""
    found: str | None = session["instance_id"]
    return found


def _stalled(sessions: Sequence[Json]) -> Iterator[tuple[Json, Matter]]:
    for session in sessions:
        if session["status"] != "stalled" or session.get("computed_status") == "released":
            continue
        held = session["held_items"]
        holds = f", holds {', '.join(map(safe, held))}" if held else ""
        silent = length(session["heartbeat_age_seconds"])
        what = f"{_named(session)} is stalled: silent for {silent}{holds}"
        yield session, Matter(HELD if held else BROKEN, "red", what, _recover(session))


def _failed(session: Json, ago: timedelta) -> Matter:
    reason = session["metadata"].get("error_message")
    why = f": {safe(reason)}" if reason else ""
    what = f"{_named(session)} failed {length(ago.total_seconds())} ago{why}"
    return Matter(BROKEN, "red", what, _recover(session))


def _failed_before(sessions: Sequence[Json]) -> Matter:
    ids = ", ".join(safe(session["session_id"][:SHORT]) for session in sessions[:NAMED_FAILURES])
    more = ", …" if len(sessions) > NAMED_FAILURES else ""
    what = f"{plural(len(sessions), 'session')} failed more than an hour ago: {ids}{more}"
    return Matter(PAST, "red", what)


def _instances(instances: Sequence[Json]) -> Iterator[tuple[str, Matter]]:
    there = {instance["instance_id"] for instance in instances}
    for instance in instances:
        name = safe(instance["instance_id"])
        if troubles := [*_troubles(instance, there)]:
            urgency, style = min((urgency, style) for urgency, style, _ in troubles)
            what = f"{name} {'; '.join(words for _, _, words in troubles)}"
            advice = f"holdfast resume {name}" if urgency == BROKEN else None
            yield instance["instance_id"], Matter(urgency, style, what, advice)


def _troubles(instance: Json, there: Collection[str]) -> Iterator[tuple[int, str, str]]:
    if instance["status"] == "stale":
        restarts = instance["restarts"]
        again = f", restarted {plural(restarts, 'time')}" if restarts else ""
        silent = length(instance["age_seconds"])
        yield BROKEN, "red", f"is stale: silent for {silent}{again}"
    elif instance["activity"] == "waiting_for_human":
        reason = instance["activity_reason"]
        yield WAITS, "magenta", f"waits for you{f': {safe(reason)}' if reason else ''}"
    if instance["health"] == "degraded":
        reasons = [r for r in instance.get("health_reasons", []) if r != WITHOUT_SESSION]
        if len(reasons) < len(instance.get("health_reasons", [])):
            lost = safe(told(instance.get("lost_work") or {}))
            yield HELD, "red", f"works without a session: {lost}"
        if reasons:
            yield UNWELL, "yellow", f"is degraded: {'; '.join(map(safe, reasons))}"
    if instance["parent_id"] and instance["parent_id"] not in there:
        yield UNWELL, "yellow", f"is an orphan: its parent {safe(instance['parent_id'])} is closed"


def _ended_ago(session: Json, now: datetime) -> timedelta:
    return now - _time(session["completed_at"] or session["updated_at"])


def _named(session: Json) -> str:
    where = f" on {safe(session['machine_id'])}" if session["machine_id"] else ""
    return f"session {safe(session['session_id'][:SHORT])} ({safe(session['project_id'])}{where})"


def _recover(session: Json) -> str:
    return f"holdfast recover {safe(session['session_id'][:SHORT])} --onto MACHINE"


def _time(timestamp: str) -> datetime:
    return moments.read(timestamp) or datetime.fromtimestamp(0, timezone.utc)
