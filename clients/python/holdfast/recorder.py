"""Recording without ever failing the work that is recorded (S4 4.3)."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from holdfast.delivery import PATIENCE_SECONDS, Delivery, End
from holdfast.errors import HoldfastError, InvalidInput, ServiceFault, Unauthorized, Unavailable
from holdfast.hearing import hear_nothing
from holdfast.outage import Outage
from holdfast.refusals import Refusals
from holdfast.request import Write, moment, new_key, new_placeholder
from holdfast.spool import Spool
from holdfast.transport import Transport
from holdfast.types import Json

log = logging.getLogger("holdfast")

# How long a new write waits for those kept before it, and the end for those that are left.
QUEUE_SECONDS = 2.0
FIRST_LOOK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 5.0
# Whoever asks for more than a minute, which the service's limits are counted by.
LONGEST_ASKED_SECONDS = 60.0
# A key that was refused is rarely valid a moment later, and the service logs every attempt.
LONGEST_REFUSED_LOOK_SECONDS = 30.0


class Recorder:
    """Sends writes if it can, keeps them if it cannot, and sees to it that those are sent later.

    What other processes of the user have kept counts as much as what this one has: it goes first,
    and whoever hears from the service sends it.
    """

    def __init__(
        self,
        transport: Transport,
        spool: Spool,
        outage: Outage,
        delivery: Delivery,
        refusals: Refusals,
    ) -> None:
        self._transport = transport
        self._spool = spool
        self._outage = outage
        self._delivery = delivery
        self._refusals = refusals
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        # The first of a row that did not move while it was waited for.
        self._stuck: str | None = None
        self._leaves_at = float("inf")
        outage.on_end(self.look)
        self.look()

    def record(self, write: Write, *, refusable: bool = False) -> Json:
        """Send a write, or keep it. The reply, or what was sent with ``unsent: True``.

        Refused, it is logged and answered with ``refused``: the error's code. Raises nothing that
        has to do with the service, unless it is ``refusable``: then a refusal is raised.
        """
        write = _complete(write)
        body = {**(write.request.body or {})}
        if not self.catch_up():
            return self._keep(write, body, tried=False)
        request = self._spool.resolved(write.request)
        if request is None:
            return self._keep(write, body, tried=False)
        try:
            reply = self._transport.send(
                request, patience=PATIENCE_SECONDS, timeout=PATIENCE_SECONDS
            )
        except (Unavailable, ServiceFault, Unauthorized) as e:
            self._outage.begin(e)
            return self._keep(write, body, tried=not isinstance(e, Unauthorized))
        except HoldfastError as e:
            self._outage.end()
            if refusable:
                raise
            return self._refused(write, body, e)
        self._outage.end()
        return reply.body if isinstance(reply.body, dict) else {}

    def refuse(self, write: Write, error: HoldfastError) -> Json:
        """What :meth:`record` answers to what is refused; told to nobody but the log."""
        return self._refused(write, {**(write.request.body or {})}, error)

    def keep(self, writes: Iterable[Write]) -> None:
        """Keep writes of JSON without trying to send them: for who may be killed at any moment.

        Followed by :meth:`leave_within`.
        """
        self._spool.keep_all([_complete(write) for write in writes])

    def leave_within(self, seconds: float) -> bool:
        """Send what is kept, for so long at most; whether nothing is left. Nor does :meth:`close`
        wait for the service any longer.
        """
        self._leaves_at = time.monotonic() + seconds
        return self._delivery.flush(seconds, patient=False)

    def catch_up(self) -> bool:
        """Wait a little for what has to go first; whether the service can be spoken to now."""
        if self._outage.lasts:
            return False
        if not self._spool.has_any():
            return True
        self._start()
        before = self._spool.first()
        if before is not None and before.key == self._stuck:
            return False
        if self._delivery.flush(QUEUE_SECONDS, patient=False):
            return True
        after = self._spool.first()
        self._stuck = after.key if after and before and after.key == before.key else None
        return False

    def look(self) -> None:
        """The service may be there: if anything is kept, by whomever, send it."""
        if self._spool.has_any():
            self._start()
            self._wake.set()

    def close(self) -> None:
        """One more attempt; what is kept then stays on disk for the next one."""
        if self._closing:
            return
        if self._patience > 0 and self._spool.has_any():
            self._delivery.flush(self._patience, patient=False)
        self._closing = True
        self._delivery.stop()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=self._patience)
        self._refusals.tell()
        left = self._spool.leave()
        if left.kept:
            log.warning(
                "%s kept in %s, to be sent by the next client with the same API key.",
                _counted(left.kept),
                self._spool.path,
            )
        if left.lost:
            log.error(
                "%s lost: neither the service could be reached nor a file be kept in %s.",
                _counted(left.lost),
                self._spool.path.parent,
            )

    @property
    def _patience(self) -> float:
        """The seconds for which the service is still waited for at the end."""
        return min(QUEUE_SECONDS, max(self._leaves_at - time.monotonic(), 0.0))

    def _keep(self, write: Write, body: Json, *, tried: bool) -> Json:
        placeholder = None
        if write.creates is not None:
            placeholder = new_placeholder(write.creates)
            body[f"{write.creates}_id"] = placeholder
        try:
            self._spool.keep(write, placeholder=placeholder, tried=tried)
        except (TypeError, ValueError) as e:
            return self._refused(write, body, InvalidInput(f"The body is not JSON: {e}"))
        self._outage.tell()
        self._start()
        return {**body, "unsent": True}

    def _refused(self, write: Write, body: Json, error: HoldfastError) -> Json:
        if self._refusals.note(write.request.method, write.request.path, error):
            self._refusals.tell()
        return {**body, "refused": error.code}

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
        hear_nothing()
        pause = FIRST_LOOK_SECONDS
        while not self._closing:
            if self._delivery.deliver() is End.NOTHING_LEFT:
                with self._lock:
                    if not self._spool.has_any():
                        self._thread = None
                        return
                pause = FIRST_LOOK_SECONDS
            asked = min(self._delivery.asked_to_wait(), LONGEST_ASKED_SECONDS)
            wait = asked + pause * random.uniform(0.5, 1.0)
            if self._wake.wait(wait):
                self._wake.clear()
                pause = FIRST_LOOK_SECONDS
            else:
                refused = self._outage.is_refusal
                longest = LONGEST_REFUSED_LOOK_SECONDS if refused else LONGEST_LOOK_SECONDS
                pause = min(pause * 2, longest)


def _counted(writes: int) -> str:
    """So many of them, for people."""
    return "1 write is" if writes == 1 else f"{writes} writes are"


def _complete(write: Write) -> Write:
    """With an idempotency key and, where it matters, the time at which it happened."""
    request = write.request
    if request.idempotency_key is None:
        request = request._replace(idempotency_key=new_key())
    if write.dated:
        body = {**(request.body or {})}
        when = {"occurred_at": moment(time.time()), "clock": "client"}
        body["metadata"] = {**when, **(body.get("metadata") or {})}
        request = request._replace(body=body)
    return write._replace(request=request)
