"""Sending what was kept, in its order and once, by whoever of the user's processes comes first."""

from __future__ import annotations

import logging
import time
from enum import Enum

from holdfast.additions import AddedText, marked_as_kept
from holdfast.earlier import Earlier
from holdfast.errors import (
    HoldfastError,
    InvalidInput,
    ServiceFault,
    Unauthorized,
    Unavailable,
)
from holdfast.outage import Outage
from holdfast.refusals import Refusals
from holdfast.request import Request, moment, takes_time
from holdfast.spool import Entry, Spool
from holdfast.transport import Transport
from holdfast.types import Json

log = logging.getLogger("holdfast")

# How long one entry's sending may take.
PATIENCE_SECONDS = 5.0
# What is left of a flush's time is given to its last attempt, but no less than this.
SHORTEST_ATTEMPT_SECONDS = 0.2
LOOK_SECONDS = 0.05
# After so many failures of the service over one entry it is taken for the entry's fault.
MAX_FAULTS = 5


class End(Enum):
    """How a delivery ended."""

    NOTHING_LEFT = 1
    FAILED = 2
    # Another process is at it, or the time was up.
    HELD_UP = 3


class Delivery:
    """Sends entries of the spool. ``sent`` is how many so far."""

    def __init__(
        self, transport: Transport, spool: Spool, outage: Outage, refusals: Refusals
    ) -> None:
        self._transport = transport
        self._spool = spool
        self._outage = outage
        self._refusals = refusals
        self._earlier = Earlier(transport)
        self._is_stopped = False
        self._asked_to_wait = 0.0
        self.sent = 0

    def flush(self, timeout: float, *, patient: bool = True) -> bool:
        """Send what is kept, for at most so many seconds; whether nothing is left.

        Unless ``patient`` it gives up as soon as an attempt fails.
        """
        deadline = time.monotonic() + timeout
        while self._spool.has_any():
            end = self.deliver(deadline)
            if end is End.NOTHING_LEFT:
                continue
            left = deadline - time.monotonic()
            if left <= 0 or (end is End.FAILED and not patient):
                return False
            time.sleep(min(LOOK_SECONDS, left))
        return True

    def deliver(self, deadline: float | None = None) -> End:
        """Send entries until there is none, or one fails, or the time is up."""
        with self._spool.delivering() as ours:
            if not ours:
                return End.HELD_UP
            try:
                return self._deliver(deadline)
            finally:
                self._refusals.tell()

    def stop(self) -> None:
        """Begin with no further entry."""
        self._is_stopped = True

    def asked_to_wait(self) -> float:
        """The seconds for which the service asked to be left alone; it is told once."""
        seconds, self._asked_to_wait = self._asked_to_wait, 0.0
        return seconds

    def _deliver(self, deadline: float | None) -> End:
        while not self._is_stopped:
            left = PATIENCE_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            entry = self._spool.first()
            if entry is None:
                return End.HELD_UP if self._spool.has_any() else End.NOTHING_LEFT
            timeout = max(min(left, PATIENCE_SECONDS), SHORTEST_ATTEMPT_SECONDS)
            if not self._deliver_one(entry, timeout):
                return End.FAILED
        return End.HELD_UP

    def _deliver_one(self, entry: Entry, timeout: float) -> bool:
        """Send one entry and take it out of the row; false if the service is not there."""
        if entry.fault is not None:
            self._set_aside(entry, InvalidInput(f"It was not sent: {entry.fault}.", code=UNUSABLE))
            return True
        request = self._spool.resolved(entry.request)
        if request is None:
            if self._spool.let_wait_with_its_origin(entry):
                return True
            if self._spool.is_awaited(entry.request):
                return False
            self._set_aside(entry, LOST_ORIGIN)
            return True
        try:
            known: Json | None = self._earlier.outcome(entry, request)
            if known is None:
                if entry.tried_at is None and entry.replaces is None:
                    self._spool.trying()
                known = self._sent(entry, request, timeout)
        except (Unavailable, Unauthorized) as e:
            self._outage.begin(e)
            self._asked_to_wait = getattr(e, "retry_after", None) or 0.0
            return False
        except ServiceFault as e:
            self._outage.begin(e)
            self._spool.fault(entry)
            if entry.faults + 1 >= MAX_FAULTS:
                self._set_aside(entry, e)
            return False
        except HoldfastError as e:
            self._outage.end()
            self._set_aside(entry, e)
            return True
        # What listens for the end of an outage may need the id at once.
        self._spool.done(entry, _created_id(entry, known))
        self.sent += entry.replaces is None
        self._outage.end()
        if entry.replaces is not None and known.get("lost_claims"):
            log.warning("%s has lost its claims: %s", entry.replaces, known["lost_claims"])
        return True

    def _sent(self, entry: Entry, request: Request, timeout: float) -> Json:
        """The reply to an entry, which says when it happened if the service has a place for it."""
        request = marked_as_kept(request)
        if takes_time(request.method, request.path):
            when = {"occurred_at": AddedText(moment(entry.kept_at))}
            request = request._replace(body={**when, **(request.body or {})})
        return self._transport.send(request, retries=0, timeout=timeout).body or {}

    def _set_aside(self, entry: Entry, error: HoldfastError) -> None:
        if entry.replaces is not None:
            # A heartbeat that comes too late for its session says nothing to anyone.
            self._spool.done(entry)
            return
        self._refusals.note(entry.method, entry.path, error)
        self._spool.set_aside(entry, error)


# What the file holds but no client wrote.
UNUSABLE = "unusable_entry"
LOST_ORIGIN = HoldfastError(
    "What it belongs to was never recorded.", code="belongs_to_nothing_recorded"
)


def _created_id(entry: Entry, reply: Json) -> str | None:
    if entry.placeholder is None:
        return None
    created = entry.placeholder.split("-")[1]
    found = reply.get(f"{created}_id")
    return found if isinstance(found, str) else None
