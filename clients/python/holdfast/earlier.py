"""Whether a write that was never answered was carried out all the same."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from holdfast.errors import NotFound
from holdfast.request import Params, Request
from holdfast.spool import Entry
from holdfast.transport import Transport

# The service repeats its reply to an idempotency key for 24 hours.
KEY_SECONDS = 23 * 3600.0
CLOCKS_SECONDS = 24 * 3600.0
# Clocks that agree do so within this.
SKEW_SECONDS = 60.0
PAGE = 1_000

_STREAM = re.compile(r"/api/(session|instance|machine)s/([^/]+)")
_CREATIONS = {
    "/api/sessions": "session_created",
    "/api/instances": "instance_registered",
    "/api/tasks": "task_created",
}


class Earlier:
    """Looks in the record itself, where every event names the key of its command.

    Needed only for an entry that was sent once, more than a day ago, without an answer: within a
    day the idempotency key alone sees to it that it happens once.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def outcome(self, entry: Entry, request: Request) -> dict[str, Any] | None:
        """What the write did, if it was carried out; ``None`` if it was not, or if it is too young
        to have to ask. Raises :class:`HoldfastError`.
        """
        if entry.tried_at is None:
            return None
        # A time that is still to come was told by a clock that has been set back since.
        if -SKEW_SECONDS < time.time() - entry.tried_at < KEY_SECONDS:
            return None
        for event in self._events(entry, request):
            if event["metadata"].get("command_id") == entry.key:
                category, _, key = event["stream_id"].partition("-")
                return {f"{category}_id": key, **event["event_data"]}
        return None

    def _events(self, entry: Entry, request: Request) -> Iterator[dict[str, Any]]:
        stream = _STREAM.match(request.path)
        if stream is not None and entry.tried_at is not None:
            tried_at = entry.tried_at if entry.tried_at <= time.time() else 0.0
            since = datetime.fromtimestamp(max(tried_at - CLOCKS_SECONDS, 0.0), timezone.utc)
            yield from self._of_stream(f"{stream[1]}-{stream[2]}", since)
        elif request.path in _CREATIONS:
            yield from self._of_type(_CREATIONS[request.path])

    def _of_stream(self, stream_id: str, since: datetime) -> Iterator[dict[str, Any]]:
        path = f"/api/streams/{stream_id}/events"
        params: Params = {"start_date": since.isoformat(), "limit": PAGE}
        while True:
            try:
                page = self._transport.send(Request("GET", path, params=params), retries=0).body
            except NotFound:
                return
            yield from page["events"]
            if not page.get("next_cursor"):
                return
            params = {**params, "cursor": page["next_cursor"]}

    def _of_type(self, event_type: str) -> Iterator[dict[str, Any]]:
        position = 0
        while True:
            params: Params = {"event_type": event_type, "after": position, "limit": PAGE}
            page = self._transport.send(Request("GET", "/api/events", params=params), retries=0)
            yield from page.body["events"]
            if not page.body["events"]:
                return
            position = page.body["next_position"]
