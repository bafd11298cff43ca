"""The operations on history: events, replay, the catalogue of event types (S2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from application.engine.fields import Sought
from application.eventstore.mapper import Recorded
from application.eventstore.records import Criteria
from application.eventstore.store import MAX_POSITION
from application.history import History
from domain.aggregate import BASE_FIELDS, Event, Json
from domain.errors import InstanceNotFound, StreamNotFound
from domain.instances.instance_events import INSTANCE_EVENTS
from domain.instances.work_events import ALIASES, CATALOGUE
from interfaces.operations.base import (
    Operation,
    Params,
    Position,
    Services,
    Tool,
    either_cursor_or_offset,
    query,
)
from interfaces.replies import events as replies
from projections.kernel.paging import PAGE_BYTES, Order, Page, fitting, number, room

EVENTS_MAX = 1_000  # spec 9
LONGEST_WAIT_SECONDS = 25
# Seconds between two reads for a long poll while no new event matches its filter.
SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0


def _moment(value: object, *, ends_day: bool) -> object:
    """A moment or a day in ISO 8601, in UTC unless it names a time zone."""
    if not isinstance(value, str):
        return value
    # The + of a time zone arrives as a space if the URL does not encode it.
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date or a time in ISO 8601") from None
    if _DAY.fullmatch(text) and ends_day:
        moment += timedelta(days=1, microseconds=-1)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_DAY = re.compile(r"[0-9W-]+")
From = Annotated[datetime, BeforeValidator(partial(_moment, ends_day=False))]
# A day ends with its last microsecond: bounds are inclusive (spec 17).
Until = Annotated[datetime, BeforeValidator(partial(_moment, ends_day=True))]


class EventQuery(Params):
    """Filters on the events of a stream."""

    event_type: list[str] = Field(default_factory=list)
    start_date: From | None = None
    end_date: Until | None = None
    keyword: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: Annotated[int, Field(ge=1, le=EVENTS_MAX)] = 100
    offset: Annotated[int, Field(ge=0, le=2**31)] = 0
    # ``next_cursor`` of the page before; the next page starts behind it whatever changes.
    cursor: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _either_cursor_or_offset(self) -> Self:
        return either_cursor_or_offset(self)


class InstanceEvents(EventQuery):
    """Filters on the events of the instance in the path."""

    instance_id: str


class StreamEvents(EventQuery):
    """Filters on the events of the stream in the path."""

    stream_id: Sought


class Replay(Params):
    """The event whose state is wanted, and the event to compare it with."""

    to_sequence_num: int | None = None
    diff_from: int | None = None


class InstanceReplay(Replay):
    """The instance in the path, and an event of it."""

    instance_id: str


class StreamReplay(Replay):
    """The stream in the path, and an event of it."""

    stream_id: Sought


class Feed(Params):
    """Where to read on in the log, and how long to wait for more events."""

    after: Position = 0
    limit: Annotated[int, Field(ge=1, le=EVENTS_MAX)] = 100
    event_type: list[str] = Field(default_factory=list)
    # Seconds. After 25 the reply comes in any case; to wait longer, ask again.
    wait: Annotated[float, Field(ge=0)] = 0


BY_NUMBER = Order("events", {"sequence_num": number})


def stored_types(given: Sequence[str]) -> list[str]:
    """The event types as stored, with aliases replaced by the types that they stand for."""
    return list(dict.fromkeys(ALIASES.get(name, name) for name in given))


def event_reply(event: Recorded) -> Json:
    """An event as clients see it."""
    category, _, key = event.stream_id.partition("-")
    return {
        "event_id": event.event_id,
        "stream_id": event.stream_id,
        **({"instance_id": key} if category == "instance" else {}),
        "event_type": event.event_type,
        "sequence_num": event.sequence_num,
        "position": event.position,
        "timestamp": event.timestamp,
        "event_data": event.event_data,
        "metadata": event.full_metadata(),
    }


async def _events(s: Services, namespace: str, stream_id: str, p: EventQuery) -> Json:
    criteria = Criteria(
        types=stored_types(p.event_type),
        start=p.start_date,
        end=p.end_date,
        keyword=p.keyword,
        newest_first=p.order == "desc",
    )
    lane = s.history.ask if criteria.is_empty else s.history.search
    page = Page(p.limit, p.offset, p.cursor)
    place = page.place(BY_NUMBER, {"stream_id": stream_id, **criteria._asdict()})
    past = place.parameters["past_sequence_num"]
    found = await lane(History.find, namespace, stream_id, criteria, p.limit, p.offset, past)
    events = [event_reply(event) for event in found.events]
    # The history has already bounded the page by bytes, which is enough for most callers.
    count = fitting(events) if room.get() < PAGE_BYTES else len(events)
    rows = [{"sequence_num": event.sequence_num} for event in found.events[:count]]
    has_more = found.has_more or count < len(events)
    return {
        "events": events[:count],
        "total_count": found.total_count,
        "limit": p.limit,
        "offset": p.offset,
        "has_more": has_more,
        "next_cursor": place.after(rows, page) if has_more else None,
    }


async def _instance_events(s: Services, namespace: str, p: InstanceEvents) -> Json:
    """List an instance's events, filtered by type, date and keyword."""
    try:
        return await _events(s, namespace, f"instance-{p.instance_id}", p)
    except StreamNotFound:
        raise InstanceNotFound.named(p.instance_id) from None


async def _stream_events(s: Services, namespace: str, p: StreamEvents) -> Json:
    """List a stream's events, filtered by type, date and keyword."""
    return await _events(s, namespace, p.stream_id, p)


async def _instance_replay(s: Services, namespace: str, p: InstanceReplay) -> Json:
    """Rebuild an instance's state as of any of its events."""
    stream_id = f"instance-{p.instance_id}"
    try:
        return await s.history.ask(
            History.replay, namespace, stream_id, p.to_sequence_num, p.diff_from
        )
    except StreamNotFound:
        raise InstanceNotFound.named(p.instance_id) from None


async def _stream_replay(s: Services, namespace: str, p: StreamReplay) -> Json:
    """Rebuild a stream's state as of any of its events."""
    return await s.history.ask(
        History.replay, namespace, p.stream_id, p.to_sequence_num, p.diff_from
    )


async def _feed(s: Services, namespace: str, p: Feed) -> Json:
    """List all events after a position, in commit order; can wait for more."""
    types = stored_types(p.event_type)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(p.wait, LONGEST_WAIT_SECONDS)
    # The head is taken before reading: the read may then see more events, but never fewer.
    head = s.followers.known(namespace)
    begin = s.followers.skipped(namespace, types, p.after)
    events, has_more = await _after(s, namespace, begin, MAX_POSITION, p, types)
    if not events:
        s.followers.found_nothing(namespace, types, p.after, head)
    if not events and p.wait:
        with s.followers.waiting():
            # Skip what was read before: nothing in it matches.
            looked, pause = max(head, p.after), SHORTEST_PAUSE_SECONDS
            while not events and (left := deadline - loop.time()) > 0:
                head = await s.followers.beyond(namespace, looked, left)
                if head <= looked:
                    continue
                events, has_more = await _after(s, namespace, looked, head, p, types)
                looked = head
                if not events:
                    s.followers.found_nothing(namespace, types, p.after, head)
                    # Many events arrive and none matches: read less often.
                    await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    return {
        "events": [event_reply(event) for event in events],
        "next_position": events[-1].position if events else p.after,
        **({"has_more": True} if has_more else {}),
    }


async def _after(
    s: Services, namespace: str, position: int, head: int, p: Feed, types: Sequence[str]
) -> tuple[list[Recorded], bool]:
    return await s.history.ask(History.after, namespace, position, head, p.limit, types)


async def _event_types(s: Services, namespace: str, p: Params) -> Json:
    """List the event types of an instance's stream, with their fields."""
    return {"event_types": event_types()}


def event_types() -> list[Json]:
    """The types that the service records itself, then those of the catalogue (S2)."""
    own = [
        {
            "type": event.event_type,
            "description": (event.__doc__ or "").partition("\n")[0],
            "category": "instance",
            "required_fields": _payload(event, required=True),
            "optional_fields": _payload(event, required=False),
        }
        for event in INSTANCE_EVENTS
    ]
    return own + [
        {
            "type": name,
            "description": cls.about(),
            "category": cls.category,
            "required_fields": cls.required_fields(),
            "optional_fields": cls.optional_fields(),
        }
        for name, cls in CATALOGUE.items()
    ]


def _payload(event: type[Event], *, required: bool) -> list[str]:
    """The names of an event type's own required fields, or of its optional ones."""
    own = [f for f in fields(event) if f.name not in BASE_FIELDS]  # type: ignore[arg-type]
    return [f.name for f in own if (f.default is MISSING) is required]


ROWS: tuple[Operation, ...] = (
    query(
        "event_query",
        "/api/instances/{instance_id}/events",
        InstanceEvents,
        _instance_events,
        reply=replies.EventPage,
        tool=Tool(
            "mcp_meta_query_events",
            "Dates are ISO 8601, in UTC unless they name a zone; keyword is searched for in the"
            ' event\'s data, and order "desc" begins with the latest.',
            grouped={"filters": ("event_type", "start_date", "end_date", "keyword")},
        ),
    ),
    query(
        "event_replay",
        "/api/instances/{instance_id}/replay",
        InstanceReplay,
        _instance_replay,
        reply=replies.Replay,
        tool=Tool(
            "mcp_meta_replay_events",
            "Without to_sequence_num it is the state after the last event; diff_from adds what"
            " changed since that event.",
        ),
    ),
    query(
        "event_type_list",
        "/api/event-types",
        Params,
        _event_types,
        reply=replies.EventTypes,
        tool=Tool(
            "mcp_meta_list_event_types",
            "Types of the category instance are recorded by the service and cannot be emitted;"
            " all others can.",
        ),
    ),
    query("event_feed", "/api/events", Feed, _feed, reply=replies.FeedPage),
    query(
        "stream_events",
        "/api/streams/{stream_id:path}/events",
        StreamEvents,
        _stream_events,
        reply=replies.EventPage,
    ),
    query(
        "stream_replay",
        "/api/streams/{stream_id:path}/replay",
        StreamReplay,
        _stream_replay,
        reply=replies.Replay,
    ),
)
