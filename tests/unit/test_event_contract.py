"""What is stored stays readable: the names and payloads of events, frozen in a committed file."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import orjson
import pytest

import domain
from domain.aggregate import BASE_FIELDS, Event, Json
from domain.sessions.session import SESSION_STATUSES
from domain.sessions.task import TASK_STATUSES

CONTRACT = Path(__file__).parents[1] / "contracts" / "events.json"
HOW = (
    "Events that are stored cannot be changed. Keep the old shape readable (a new optional field,"
    " or class_version + upcast_vN_vM), then freeze the new contract:"
    " python -m tests.unit.test_event_contract"
)


def event_classes(base: type[Event] = Event) -> Iterator[type[Event]]:
    """Every event of the domain that has a name, sorted by it."""
    for module in pkgutil.walk_packages(domain.__path__, "domain."):
        importlib.import_module(module.name)
    found: dict[str, type[Event]] = {}
    remaining = [base]
    while remaining:
        cls = remaining.pop()
        remaining += cls.__subclasses__()
        if "event_type" in vars(cls) and cls.__module__.startswith("domain."):
            found[cls.event_type] = cls
    yield from (found[name] for name in sorted(found))


def contract() -> Json:
    """Each event's name with its version and its fields: their types, and which may be absent."""
    return {
        cls.event_type: {
            "version": cls.class_version,
            "fields": {
                field.name: {
                    "type": _spelled(get_type_hints(cls)[field.name]),
                    "required": _is_required(field),
                }
                for field in _payload(cls)
            },
        }
        for cls in event_classes()
    }


def sample(cls: type[Event], *, optional: bool) -> Json:
    """A payload of this event, with or without what may be absent."""
    hints = get_type_hints(cls)
    return {
        field.name: _value(hints[field.name])
        for field in _payload(cls)
        if optional or _is_required(field)
    }


def _payload(cls: type[Event]) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.name not in BASE_FIELDS]  # type: ignore[arg-type]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _spelled(hint: Any) -> str:
    """A type as its reader understands it, however the code says it."""
    if get_origin(hint) is Literal:
        return " | ".join(sorted(map(repr, get_args(hint))))
    if get_origin(hint) is None:
        return "null" if hint is type(None) else str(hint.__name__)
    inner = [_spelled(argument) for argument in get_args(hint)]
    if get_origin(hint) in (list, dict):
        return f"{get_origin(hint).__name__}[{', '.join(inner)}]"
    return " | ".join(inner)


def _value(hint: Any) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return arguments[0]
    if origin is list:
        return [_value(arguments[0]), _value(arguments[0])]
    if origin is dict:
        return {"key": [1, 2.5, None, "vier", {"deep": True}]}
    if arguments:
        return _value(next(a for a in arguments if a is not type(None)))
    return {str: "wörd", int: 7, bool: True, float: 0.25}[hint]


def _differences(old: Json, new: Json) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name} is gone"
        elif name not in old:
            yield f"{name} is new"
        elif old[name] != new[name]:
            yield f"{name} was {old[name]} and is {new[name]}"


def test_events_are_as_they_were_published() -> None:
    published = orjson.loads(CONTRACT.read_bytes())

    differences = list(_differences(published, contract()))

    assert not differences, "\n".join([*differences, HOW])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("session_paused"), "session_paused is new"),
        (lambda c: c.update(moon_landed={}), "moon_landed is gone"),
        (lambda c: c["claim_granted"]["fields"].pop("holder_id"), "claim_granted was"),
        (lambda c: c["claim_granted"].update(version=2), "claim_granted was"),
    ],
    ids=["added", "removed", "field", "version"],
)
def test_a_change_is_noticed(change: Any, said: str) -> None:
    published = contract()
    change(published)

    [difference] = _differences(published, contract())

    assert difference.startswith(said)


def test_the_streams_of_the_specification_have_their_events() -> None:
    """Spec 17, "Event names of the other streams"."""
    named = (
        "session_created session_heartbeat session_updated session_paused session_activated"
        " session_stalled session_completed session_failed session_recovery_prepared"
        " session_recovered session_archived session_deleted"
        " task_created task_started task_completed task_failed task_blocked task_updated"
        " task_deleted machine_registered machine_heartbeat machine_updated"
        " claim_granted claim_taken_over claim_released claim_acquired claim_lost claim_given_up"
    )

    assert set(named.split()) <= set(contract())


def test_statuses_are_as_they_were_published() -> None:
    assert set(SESSION_STATUSES) == {"active", "paused", "completed", "failed", "stalled"}
    assert set(TASK_STATUSES) == {"pending", "in_progress", "completed", "failed", "blocked"}


if __name__ == "__main__":
    CONTRACT.write_bytes(orjson.dumps(contract(), option=orjson.OPT_INDENT_2) + b"\n")
