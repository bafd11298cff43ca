"""What must be so after every crash. Each check names what it found; nothing is good."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from application.eventstore.mapper import Recorded
from tests.crash.history import History
from tests.crash.ledger import Entry

Check = Callable[[History], list[str]]

# The types of which each request of a command writes exactly one event.
EFFECTS: Mapping[str, frozenset[str]] = {
    "session_create": frozenset({"session_created"}),
    "session_heartbeat": frozenset({"session_heartbeat"}),
    "session_update": frozenset({"session_updated"}),
    "session_mark_failed": frozenset({"session_failed"}),
    "session_mark_stalled": frozenset({"session_stalled"}),
    "session_recover": frozenset({"session_recovered"}),
    "session_delete": frozenset({"session_deleted"}),
    "task_create": frozenset({"task_created"}),
    "task_update": frozenset(
        {"task_started", "task_completed", "task_failed", "task_blocked", "task_updated"}
    ),
    "machine_register": frozenset({"machine_registered", "machine_updated"}),
    "machine_heartbeat": frozenset({"machine_heartbeat"}),
    "claim_item": frozenset({"claim_granted", "claim_taken_over"}),
    "claim_release": frozenset({"claim_released"}),
    "work_item_complete": frozenset({"work_item_completed"}),
}


def nothing_is_lost(history: History) -> list[str]:
    """Every acknowledged write is in the log, at the position that was acknowledged."""
    at = {event.position: event for event in history.events}
    requests = _requests(history.events)
    found = []
    for entry in _acknowledged(history):
        if not entry.effects:
            if (entry.position or 0) > history.head:
                found.append(f"{_named(entry)}: the log ends at {history.head}")
            continue
        event = at.get(entry.position or 0)
        if event is None:
            found.append(f"{_named(entry)}: there is no such event")
        elif not _is_of(event, entry):
            found.append(f"{_named(entry)}: the event there is of another request")
        else:
            written = requests[_request_id(event)]
            if written[-1] is not event:
                found.append(f"{_named(entry)}: is not the last event of its request")
            if not any(_is_effect(one, entry) for one in written):
                found.append(f"{_named(entry)}: no {' or '.join(entry.effects)} of that")
    return found


def nothing_is_doubled(history: History) -> list[str]:
    """A request's events are there once, and a key or a mark belongs to one request."""
    found = [
        f"the event {event_id} is there {times} times"
        for event_id, times in Counter(str(e.event_id) for e in history.events).items()
        if times > 1
    ]
    for request_id, events in _requests(history.events).items():
        positions = [event.position for event in events]
        if positions != list(range(positions[0], positions[0] + len(positions))):
            found.append(f"request {request_id} was appended in pieces, at {positions}")
        command = events[0].full_metadata()["command"]
        effects = [event for event in events if event.event_type in EFFECTS.get(command, ())]
        if command in EFFECTS and len(effects) != 1:
            found.append(f"request {request_id} ({command}) has {len(effects)} effects")
    for what, requests in _tokens(history.events).items():
        if len(requests) > 1:
            found.append(f"{what} has effects of {len(requests)} requests")
    given = Counter(entry.request_id for entry in _acknowledged(history))
    found += [f"request id {which} was given {n} times" for which, n in given.items() if n > 1]
    return found


def nothing_refused_is_there(history: History) -> list[str]:
    """A write that was refused has left no event."""
    requests = _requests(history.events)
    tokens = _tokens(history.events)
    return [
        f"{_named(entry)}: was refused ({entry.code}) and is there"
        for entry in history.entries
        if entry.outcome == "refused"
        and (entry.request_id in requests or (entry.key and f"key {entry.key}" in tokens))
    ]


def nothing_there_is_denied(history: History) -> list[str]:
    """Nobody was told that something does not exist that does, and was never deleted."""
    there: set[str] = set()
    gone: set[str] = set()
    for event in history.events:
        match event.event_type:
            case "session_created":
                there.add(event.stream_id)
            case "task_created":
                there.add(event.event_data["task_id"])
            case "task_deleted":
                gone.add(event.event_data["task_id"])
            case "session_deleted":
                gone.update([event.stream_id, *event.event_data["task_ids"]])
    found = []
    for entry in history.entries:
        if entry.code in ("session_not_found", "unknown_session", "task_not_found"):
            subject = entry.facts.get("task_id") or entry.stream
            # A task of a session that was deleted may go unmentioned, if it came from elsewhere.
            if subject in there and subject not in gone and entry.stream not in gone:
                found.append(f"{_named(entry)}: {entry.code}, but {subject} is there")
    return found


def every_stream_is_contiguous(history: History) -> list[str]:
    """In the order of the log every stream counts from 1."""
    streams: dict[str, list[int]] = defaultdict(list)
    for event in history.events:
        streams[event.stream_id].append(event.sequence_num)
    return [
        f"{stream_id} counts {_first_break(numbers)}"
        for stream_id, numbers in streams.items()
        if numbers != list(range(1, len(numbers) + 1))
    ]


def positions_have_no_gaps(history: History) -> list[str]:
    """The log counts from 1 to its head."""
    positions = [event.position for event in history.events]
    if positions == list(range(1, history.head + 1)):
        return []
    return [f"the log counts {_first_break(positions)}; its head is {history.head}"]


def everything_held_has_one_holder(history: History) -> list[str]:
    """Claims and sessions agree on who holds what, and no two work in one place."""
    holders = _holders(history.events)
    sessions = _sessions(history.events)
    found = []
    for resource, (session_id, fence) in holders.items():
        session = sessions.get(session_id)
        if session is None or not session.is_live:
            found.append(f"{resource} is held by {session_id}, which is not live")
        elif session.held.get(resource) != fence:
            found.append(f"{resource} is held by {session_id}, which does not know it")
    workers: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for session_id, session in sessions.items():
        for resource, fence in session.held.items():
            if holders.get(resource) != (session_id, fence):
                found.append(f"{session_id} believes that it holds {resource}")
        if session.is_live and session.status in ("active", "paused"):
            workers[("place", session.project, session.machine, session.slot)].append(session_id)
            if session.slot is not None:
                workers[("slot", session.machine, session.slot)].append(session_id)
    found += [f"{place} has {ids}" for place, ids in workers.items() if len(ids) > 1]
    return found


def read_models_are_as_if_built_anew(history: History) -> list[str]:
    """Every table, row for row, is what the log makes of it."""
    found = []
    for table in sorted({*history.live, *history.rebuilt}):
        live = Counter(history.live.get(table, ()))
        rebuilt = Counter(history.rebuilt.get(table, ()))
        found += [f"{table}: only live: {row}" for row in live - rebuilt]
        found += [f"{table}: only rebuilt: {row}" for row in rebuilt - live]
    return found


def no_event_was_set_aside(history: History) -> list[str]:
    """Every read model could fold every event."""
    return list(history.set_aside)


def nothing_was_broken(history: History) -> list[str]:
    """No reply was an internal error, no process ended that nobody had killed."""
    broken = [
        f"{_named(entry)}: answered {entry.status} {entry.code}"
        for entry in history.entries
        if entry.outcome == "broken"
    ]
    return [*broken, *history.surprises]


CHECKS: Sequence[Check] = (
    nothing_is_lost,
    nothing_is_doubled,
    nothing_refused_is_there,
    nothing_there_is_denied,
    every_stream_is_contiguous,
    positions_have_no_gaps,
    everything_held_has_one_holder,
    read_models_are_as_if_built_anew,
    no_event_was_set_aside,
    nothing_was_broken,
)


# Requests


def _acknowledged(history: History) -> Iterable[Entry]:
    return (entry for entry in history.entries if entry.outcome == "acknowledged")


def _request_id(event: Recorded) -> str:
    return str(event.full_metadata()["request_id"])


def _requests(events: Iterable[Recorded]) -> dict[str, list[Recorded]]:
    """The events of each request of a client, in the order of the log."""
    requests: dict[str, list[Recorded]] = defaultdict(list)
    for event in events:
        if event.metadata["actor"] != "service":  # a sweep is one request of many appends
            requests[_request_id(event)].append(event)
    return requests


def _tokens(events: Iterable[Recorded]) -> dict[str, set[str]]:
    """For each idempotency key and each mark, the requests that have effects under it."""
    tokens: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if "command_id" in event.metadata:
            tokens[f"key {event.metadata['command_id']}"].add(_request_id(event))
        inherited = event.event_data.get("recovered_from") or event.event_data.get("carried_from")
        mark = (event.event_data.get("metadata") or {}).get("mark")
        if mark is not None and not inherited:
            tokens[f"mark {mark}"].add(_request_id(event))
    return tokens


def _is_of(event: Recorded, entry: Entry) -> bool:
    """Whether the event is of the request; a repeated reply has a request id of its own."""
    if entry.attempts == 1:
        return _request_id(event) == entry.request_id
    return entry.key is not None and event.metadata.get("command_id") == entry.key


def _is_effect(event: Recorded, entry: Entry) -> bool:
    return (
        event.event_type in entry.effects
        and event.stream_id == entry.stream
        and all(event.event_data.get(name) == value for name, value in entry.facts.items())
    )


def _named(entry: Entry) -> str:
    return (
        f"{entry.method} {entry.path} (request {entry.request_id}, key {entry.key},"
        f" position {entry.position})"
    )


def _first_break(numbers: Sequence[int]) -> str:
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            return f"{number} where {expected} was due"
    return f"to {len(numbers)}"


# Holders. Folded here once more and by other means, lest the rules vouch for themselves.


@dataclass(slots=True)
class _Session:
    project: str
    machine: str
    slot: int | None
    status: str = "active"
    is_deleted: bool = False
    held: dict[str, int] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return not self.is_deleted and self.status in ("active", "paused", "stalled")


STATUS: Mapping[str, str] = {
    "session_activated": "active",
    "session_paused": "paused",
    "session_stalled": "stalled",
    "session_completed": "completed",
    "session_recovered": "completed",
    "session_failed": "failed",
}


def _sessions(events: Iterable[Recorded]) -> dict[str, _Session]:
    sessions: dict[str, _Session] = {}
    for event in events:
        category, _, session_id = event.stream_id.partition("-")
        if category != "session":
            continue
        data = event.event_data
        if event.event_type == "session_created":
            sessions[session_id] = _Session(
                data["project_id"], data["machine_id"], data.get("docker_slot")
            )
            continue
        session = sessions.get(session_id)
        if session is None:
            continue  # its beginning is missing, as other checks say
        session.status = STATUS.get(event.event_type, session.status)
        match event.event_type:
            case "claim_acquired":
                session.held[data["resource"]] = data["fence"]
            case "claim_lost" | "claim_given_up":
                session.held.pop(data["resource"], None)
            case "session_deleted":
                session.is_deleted = True
    return sessions


def _holders(events: Iterable[Recorded]) -> dict[str, tuple[str, int]]:
    """Who holds each resource, and under which fence."""
    holders: dict[str, tuple[str, int]] = {}
    for event in events:
        category, _, resource = event.stream_id.partition("-")
        if category != "claim":
            continue
        match event.event_type:
            case "claim_granted" | "claim_taken_over":
                holders[resource] = (event.event_data["holder_id"], event.sequence_num)
            case "claim_released":
                holders.pop(resource, None)
    return holders
