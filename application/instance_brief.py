"""An instance's brief: what its successor needs to carry the work on (S0 AC7, S2, spec 7)."""

from __future__ import annotations

from datetime import datetime

from application.history import History
from application.instance_view import view
from domain import liveness
from domain.aggregate import Json
from domain.claims.claim import is_work_item
from domain.errors import InstanceNotFound, StreamNotFound
from domain.instances import suggestions
from domain.instances.instance import Instance
from domain.instances.suggestions import Suggestion
from domain.liveness import Serving

# The most predecessors that a brief lists.
LONGEST_CHAIN = 100


def read(history: History, namespace: str, instance_id: str, stale_seconds: float) -> Json:
    """An instance's brief, from its own stream. Raises :class:`InstanceNotFound`."""
    try:
        instance, now = history.current(namespace, Instance.stream_id(instance_id))
    except StreamNotFound:
        raise InstanceNotFound.named(instance_id) from None
    assert isinstance(instance, Instance)
    serving = history.serving()
    known = chain(history, namespace, instance_id)
    told = brief(instance, now, stale_seconds, serving, known)
    if instance.status_at(now, stale_seconds, serving) == "stale":
        told["stale_warning"] = stale_warning(instance, now)
    return told


def chain(history: History, namespace: str, instance_id: str) -> list[str]:
    """An instance's predecessors, oldest first, then itself; empty if it is unknown."""
    found: list[str] = []
    following: str | None = instance_id
    while following is not None and len(found) < LONGEST_CHAIN:
        try:
            registered = history.first(namespace, Instance.stream_id(following))
        except StreamNotFound:
            break
        found.insert(0, following)
        following = registered.event_data.get("predecessor")
    return found


def brief(
    instance: Instance, now: datetime, stale_seconds: float, serving: Serving, chain: list[str]
) -> Json:
    """The state of an instance's work, and what to do next; without the stale warning."""
    found = suggestions.suggestions(instance)
    epic = suggestions.epic_of(instance)
    tests = suggestions.results_of(epic)
    seen = view(instance, now, stale_seconds, serving)
    return {
        "instance_id": instance.key,
        "instance": seen,
        "predecessor": instance.predecessor,
        "successor": instance.successor,
        "resume_chain": chain,
        "stale_warning": None,
        "last_epic": instance.last_epic,
        "last_epic_status": epic.status if instance.last_epic else None,
        "current_epic": instance.current_epic,
        "tests": tests and tests._asdict(),
        "checkpoint": checkpoint(instance),
        "git": instance.git,
        "held_claims": held_claims(instance),
        "suggestions": [suggestion._asdict() for suggestion in found],
        "brief": in_words(instance, seen["status"], found),
        # The stream that the evidence is in, and its last event.
        "evidence_stream": instance.id,
        "last_sequence_num": instance.version,
    }


def stale_warning(instance: Instance, at: datetime) -> str:
    """The warning that a stale instance may still be running."""
    age = liveness.human_age(instance.gap_seconds(at))
    return (
        f"Instance {instance.key} is stale: its last heartbeat was {age}, at"
        f" {_time(instance.last_heartbeat)}. Make sure that it does not run any more before"
        " its work is carried on."
    )


def checkpoint(instance: Instance) -> Json | None:
    """The latest checkpoint; one that was recorded without an id is named by its event."""
    kept = instance.checkpoint
    if kept is None:
        return None
    return {
        "checkpoint_id": kept.checkpoint_id or f"{instance.id}/{kept.number}",
        "label": kept.label,
        "state": instance.checkpoint_state,
        "sequence_num": kept.number,
        "from_instance_id": kept.from_instance_id,
    }


def held_claims(instance: Instance) -> list[Json]:
    """The work items that the instance holds, each with its fence."""
    return [
        {"item_id": item, "fence": fence}
        for item, fence in sorted(instance.held.items())
        if is_work_item(item)
    ]


def in_words(instance: Instance, status: str, found: list[Suggestion]) -> str:
    """A paragraph for a resuming agent. Numbers in brackets are event numbers of the stream."""
    who = f"Instance {instance.key} of project {instance.project}"
    parts = [f"{who} is {status}; its last heartbeat was at {_time(instance.last_heartbeat)}."]
    if instance.successor is not None:
        parts.append(f"Instance {instance.successor} carries the work on.")
    parts += [f"{text} {evidence}" for text, _, evidence in found]
    if not found:
        parts.append("It recorded nothing that there is to carry on.")
    return " ".join(parts)


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC") if at else "an unknown time"
