"""The reference of all events, made from the classes that define them.

python -m interfaces.reference > docs/events.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import NamedTuple, get_type_hints

from pydantic import TypeAdapter

from domain.aggregate import BASE_FIELDS, Event, Json
from domain.claims import claim, holder, work_item
from domain.instances import instance_events
from domain.instances.work_events import ALIASES, CATALOGUE, WorkEvent
from domain.machines import machine
from domain.sessions import session_events
from interfaces.json_schema import JsonSchema

INTRODUCTION = """\
# Events

Made from the code by `python -m interfaces.reference > docs/events.md`; a test fails when it is out
of date. `GET /api/event-types` tells programs what an instance's stream can have.

Every event has an `event_id`, its stream (`stream_id`), its number in that stream (`sequence_num`,
from 1, without gaps), its place in the namespace's log (`position`, likewise), its `event_type`, a
`timestamp` by the database's clock, its payload (`event_data`), and `metadata`: which request and
command made it, by which key, and what the caller added. **Bold** fields are always there, the
others may be absent.
"""
WORK = """\
Recorded by agents, `POST /api/instances/{id}/events`, on their own stream `instance-<id>`. Fields
that are not listed are kept as they came.
"""
CATEGORIES: Mapping[str, str] = {
    "epic": "Epics",
    "testing": "Tests and validations",
    "git": "Git",
    "deployment": "Deployments",
    "work_state": "State of the work",
    "planning": "Planning",
}
STREAMS: Sequence[tuple[str, str, Sequence[type[Event]]]] = (
    ("Life of an instance", "`instance-<id>`", instance_events.INSTANCE_EVENTS),
    ("Sessions and their tasks", "`session-<uuid>`", session_events.EVENTS),
    ("Machines", "`machine-<id>`", machine.EVENTS),
    ("Claims", "`claim-<resource>`", claim.EVENTS),
    ("Work items", "`claim-<item id>`", work_item.EVENTS),
    ("What holders note of claims", "`session-<uuid>` and `instance-<id>`", holder.EVENTS),
)
WORDS: Mapping[object, str] = {"string": "text", "boolean": "true or false", "object": "object"}

_SOURCE = re.compile(r" \((?:spec|S\d) [\d.a-z, ]+\)")


class Field(NamedTuple):
    """A field of a payload."""

    name: str
    kind: str
    required: bool

    def __str__(self) -> str:
        return f"{f'**{self.name}**' if self.required else self.name} {self.kind}"


def events_markdown() -> str:
    """The whole reference."""
    return "\n".join([INTRODUCTION, *_emitted_by_instances(), *_recorded_by_the_service()])


def _emitted_by_instances() -> Iterator[str]:
    yield f"## Work events\n\n{WORK}"
    for alias, name in ALIASES.items():
        yield f"`{alias}` is taken for `{name}`; the submitted name stays in the metadata.\n"
    for category, title in CATEGORIES.items():
        types = {n: cls for n, cls in CATALOGUE.items() if cls.category == category}
        yield f"### {title} (`{category}`)\n"
        yield _table((name, cls.about(), _catalogued(cls)) for name, cls in types.items())
        spellings = {k: v for cls in types.values() for k, v in cls.spellings.items()}
        if spellings:
            told = ", ".join(f"`{given}` as `{stored}`" for given, stored in spellings.items())
            yield f"Also accepted: {told}.\n"


def _recorded_by_the_service() -> Iterator[str]:
    yield "## Events of the service\n\nRecorded by the service itself; nobody can emit them.\n"
    for title, stream, events in STREAMS:
        yield f"### {title} ({stream})\n"
        yield _table((e.event_type, _about(e), _payload(e)) for e in _distinct(events))


def _table(rows: Iterable[tuple[str, str, Sequence[Field]]]) -> str:
    lines = ["| event | what happened | fields |", "|---|---|---|"]
    for name, about, payload in rows:
        lines.append(f"| `{name}` | {about} | {', '.join(map(str, payload)) or '–'} |")
    return "\n".join([*lines, ""])


def _distinct(events: Sequence[type[Event]]) -> Iterator[type[Event]]:
    """Those that no part of the reference before has: a session's list has a holder's too."""
    shared = () if events is holder.EVENTS else holder.EVENTS
    return (event for event in events if event not in shared)


def _about(event: type[Event]) -> str:
    line = (event.__doc__ or "").strip().partition("\n")[0].replace("``", "`")
    return _SOURCE.sub("", line)


def _catalogued(cls: type[WorkEvent]) -> list[Field]:
    properties: Json = cls.model_json_schema(schema_generator=JsonSchema)["properties"]
    fields = [
        Field(name, _kind(properties[name]), field.is_required())
        for name, field in cls.model_fields.items()
    ]
    return sorted(fields, key=lambda field: not field.required)


def _payload(event: type[Event]) -> list[Field]:
    hints = get_type_hints(event)
    return [
        Field(
            f.name,
            _kind(TypeAdapter(hints[f.name]).json_schema(schema_generator=JsonSchema)),
            f.default is MISSING,
        )
        for f in fields(event)  # type: ignore[arg-type]
        if f.name not in BASE_FIELDS
    ]


def _kind(schema: Json) -> str:
    """A JSON schema in a word or two."""
    choices = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    if len(choices) > 1:
        return " or ".join(map(_kind, choices))
    [one] = choices
    if "enum" in one:
        return " / ".join(f"`{value}`" for value in one["enum"])
    match one.get("type"):
        case "array":
            items = one.get("items")
            return f"list of {_kind(items)}" if items else "list"
        case "integer" | "number" as kind:
            return f"{kind}{_limits(one)}"
        case kind:
            return WORDS.get(kind, "any value")


def _limits(schema: Json) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None:
        return f" {low} to {high}"
    return "" if low is None else f" ≥ {low}"


if __name__ == "__main__":
    print(events_markdown(), end="")
