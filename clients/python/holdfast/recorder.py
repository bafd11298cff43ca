"""Recording without ever failing the work that is recorded (S4 4.3)."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone

from holdfast.earlier import Earlier
from holdfast.errors import HoldfastError, InvalidInput, ServiceFault, Unauthorized, Unavailable
from holdfast.outage import Outage
from holdfast.request import Write, new_key, new_placeholder
from holdfast.spool import Entry, Spool
from holdfast.transport import Transport
from holdfast.types import Json

log = logging.getLogger("holdfast")

# How long a caller's work may be held up by a service that does not answer.
PATIENCE_SECONDS = 5.0
# How long a new write waits for those kept before it, when the service is there.
QUEUE_SECONDS = 2.0
FLUSH_LOOK_SECONDS = 0.05
FIRST_LOOK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 30.0
# After so many failures of the service over one entry it is taken for the entry's fault.
MAX_FAULTS = 5


class Recorder:
    """Sends writes if it can, keeps them if it cannot, and sends those later, in their order."""

    def __init__(self, transport: Transport, spool: Spool, outage: Outage) -> None:
        self.spool = spool
        self._transport = transport
        self._outage = outage
        self._earlier = Earlier(transport)
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._asked_to_wait = 0.0
        self._kept = 0
        # Only until it is known: another process may have left something.
        self._may_have_kept = True
        outage.on_end(self._wake.set)
        if spool.has_any():
            self._start()

    def record(self, write: Write, *, refusable: bool = False) -> Json:
        """Send a write, or keep it. The reply, or what was sent with ``unsent: True``.

        Refused, it is logged and answered with ``refused``: the error's code. Raises nothing that
        has to do with the service, unless it is ``refusable``: then a refusal is raised.
        """
        write = _complete(write)
        body = {**(write.request.body or {})}
        if self._outage.lasts or not self._caught_up():
            return self._keep(write, body, tried=False)
        request = self.spool.resolved(write.request)
        if request is None:
            return self._keep(write, body, tried=False)
        try:
            reply = self._transport.send(
                request, patience=PATIENCE_SECONDS, timeout=PATIENCE_SECONDS
            )
        except (Unavailable, ServiceFault) as e:
            self._outage.begin(e)
            return self._keep(write, body, tried=True)
        except Unauthorized as e:
            self._outage.begin(e)
            return self._keep(write, body, tried=False)
        except HoldfastError as e:
            self._outage.end()
            if refusable:
                raise
            _log_refusal(write.request.method, write.request.path, e)
            return {**body, "refused": e.code}
        self._outage.end()
        return reply.body if isinstance(reply.body, dict) else {}

    def flush(self, timeout: float, *, patient: bool = True) -> bool:
        """Send what is kept, for at most so many seconds; whether nothing is left.

        Unless ``patient`` it gives up as soon as the service turns out to be away.
        """
        deadline = time.monotonic() + timeout
        while self.spool.has_any():
            if self._deliver(deadline):
                continue
            left = deadline - time.monotonic()
            if left <= 0 or (self._outage.lasts and not patient):
                return False
            time.sleep(min(FLUSH_LOOK_SECONDS, left))
        return True

    def close(self) -> None:
        """Stop sending; what is still kept stays on disk for the next one."""
        if self._may_have_kept and not self._outage.lasts:
            self.flush(QUEUE_SECONDS, patient=False)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=PATIENCE_SECONDS)
        if self.spool.has_any():
            # The last chance for what is in memory only.
            self.spool.first()
            kept, where = self.spool.stats().kept, self.spool.path
            log.warning("%d writes are kept in %s, to be sent by the next client.", kept, where)

    def _caught_up(self) -> bool:
        """Whether nothing is kept that has to go first."""
        if not self._may_have_kept:
            return True
        before = self._kept
        if self.spool.has_any():
            self._start()
            if not self.flush(QUEUE_SECONDS, patient=False):
                return False
        with self._lock:
            # Unless another thread has kept something just now.
            self._may_have_kept = self._kept != before
            return not self._may_have_kept

    def _keep(self, write: Write, body: Json, *, tried: bool) -> Json:
        placeholder = None
        if write.creates is not None:
            placeholder = new_placeholder(write.creates)
            body[f"{write.creates}_id"] = placeholder
        try:
            self.spool.keep(write, placeholder=placeholder, tried=tried)
            if self._outage.is_refusal:
                self.spool.disown()
        except (TypeError, ValueError) as e:
            error = InvalidInput(f"The body is not JSON: {e}")
            _log_refusal(write.request.method, write.request.path, error)
            return {**body, "refused": error.code}
        with self._lock:
            self._kept += 1
            self._may_have_kept = True
        self._start()
        return {**body, "unsent": True}

    def _start(self) -> None:
        with self._lock:
            if self._closing or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="holdfast-spool", daemon=True)
            # At the interpreter's end there are no new threads; the next client sends it.
            with suppress(RuntimeError):
                self._thread.start()

    def _run(self) -> None:
        """Look whether the service is back, less and less often, until nothing is left."""
        pause = FIRST_LOOK_SECONDS
        while not self._closing:
            if self._deliver():
                with self._lock:
                    if not self.spool.has_any():
                        self._thread = None
                        return
                pause = FIRST_LOOK_SECONDS
            wait, self._asked_to_wait = self._asked_to_wait, 0.0
            self._wake.wait(wait + pause * random.uniform(0.5, 1.0))
            self._wake.clear()
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)

    def _deliver(self, deadline: float | None = None) -> bool:
        """Send entries until there is none, or one fails; whether there is none."""
        with self.spool.delivering() as ours:
            if not ours:
                return False
            while not self._closing and (deadline is None or time.monotonic() < deadline):
                entry = self.spool.first()
                if entry is None:
                    return not self.spool.has_any()
                if not self._deliver_one(entry):
                    return False
        return False

    def _deliver_one(self, entry: Entry) -> bool:
        """Send one entry and take it out of the row; false if the service is not there."""
        request = self.spool.resolved(entry.request)
        if request is None:
            if self.spool.is_awaited(entry.request):
                return False
            self._set_aside(entry, _LOST_ORIGIN)
            return True
        try:
            known: Json | None = self._earlier.outcome(entry, request)
            if known is None:
                if entry.tried_at is None and entry.replaces is None:
                    self.spool.trying()
                known = (
                    self._transport.send(request, retries=0, timeout=PATIENCE_SECONDS).body or {}
                )
        except Unauthorized as e:
            self._outage.begin(e)
            self.spool.disown()
            return False
        except Unavailable as e:
            self._outage.begin(e)
            self._asked_to_wait = e.retry_after or 0.0
            return False
        except ServiceFault as e:
            self._outage.begin(e)
            self.spool.fault(entry)
            if entry.faults + 1 >= MAX_FAULTS:
                self._set_aside(entry, e)
            return False
        except HoldfastError as e:
            self._outage.end()
            self._set_aside(entry, e)
            return True
        # What listens for the end of an outage may need the id at once.
        self.spool.done(entry, _created_id(entry, known))
        self._outage.end()
        if entry.replaces is not None and known.get("lost_claims"):
            log.warning("%s has lost its claims: %s", entry.replaces, known["lost_claims"])
        return True

    def _set_aside(self, entry: Entry, error: HoldfastError) -> None:
        if entry.replaces is not None:
            # A heartbeat that comes too late for its session says nothing to anyone.
            self.spool.done(entry)
            return
        _log_refusal(entry.method, entry.path, error)
        self.spool.set_aside(entry, error)


_LOST_ORIGIN = HoldfastError(
    "What it belongs to was never recorded.", code="belongs_to_nothing_recorded"
)


def _complete(write: Write) -> Write:
    """With an idempotency key and, where it matters, the time at which it happened."""
    request = write.request
    if request.idempotency_key is None:
        request = request._replace(idempotency_key=new_key())
    if write.dated:
        body = {**(request.body or {})}
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        body["metadata"] = {
            "occurred_at": now.replace("+00:00", "Z"),
            **(body.get("metadata") or {}),
        }
        request = request._replace(body=body)
    return write._replace(request=request)


def _created_id(entry: Entry, reply: Json) -> str | None:
    if entry.placeholder is None:
        return None
    created = entry.placeholder.split("-")[1]
    found = reply.get(f"{created}_id")
    return found if isinstance(found, str) else None


def _log_refusal(method: str, path: str, error: HoldfastError) -> None:
    log.warning(
        "holdfast refused to record %s %s (%s): %s", method, path, error.code, error.message
    )
