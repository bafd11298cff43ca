"""Heartbeats for open sessions and instances (S3 FR-5)."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from holdfast.api.area import part
from holdfast.client_protocol import BeatingClient
from holdfast.errors import Conflict, HoldfastError, InvalidInput, NotFound
from holdfast.lost_work import told
from holdfast.request import Request, is_session
from holdfast.types import Json, LostClaim

log = logging.getLogger("holdfast.heartbeat")

INTERVAL_SECONDS = 30.0
# A fleet that was started at once does not beat at once for ever.
JITTER = 0.08
FAILURES_UNTIL_DEGRADED = 3
# How many intervals may pass between two attempts, however long the service is away.
LONGEST_PAUSE = 2.0
STOP_SECONDS = 2.0
ENDED = frozenset({"session_ended", "superseded", "instance_closed", "supervisor_replaced"})

Describe = Callable[[], Mapping[str, Any]]
OnLostClaims = Callable[[str, "list[LostClaim]"], None]
OnLostWork = Callable[[str, Json], None]
OnEnded = Callable[[str, HoldfastError], None]


@dataclass(frozen=True)
class HeartbeatStats:
    """Heartbeat statistics (S3's ``getHeartbeatStats``). Ages are seconds; ``None`` is never."""

    active: bool
    ids: list[str]
    interval_seconds: float
    beats: int
    failures: int
    failures_in_a_row: int
    degraded: bool
    last_beat_age_seconds: float | None
    next_beat_in_seconds: float | None
    last_error: str | None
    lost_claims: list[LostClaim] = field(default_factory=list)


@dataclass
class _Beating:
    """One session or instance that is kept alive."""

    describe: Describe | None
    due: float
    fence: int | None = None
    said: dict[str, Any] = field(default_factory=dict)
    # When it lost its work, as was told last.
    lost_at: object = None


class HeartbeatManager:
    """Sends heartbeats for sessions and instances from a daemon thread, every 30 s with jitter.

    After three failures in a row it is *degraded* and sends less often, but never stops by itself.
    It recovers with the first success, or when another call reaches the service.

    Callbacks run in the heartbeat's thread. ``on_ended(id, error)``: a session or instance is over
    (ended, superseded, closed, deleted), and gets no more heartbeats. ``on_lost_claims(id,
    claims)``: another took over claims. ``on_lost_work(id, what)``: an instance goes on although
    another has taken over its work.
    """

    def __init__(
        self,
        client: BeatingClient,
        *,
        interval: float = INTERVAL_SECONDS,
        on_lost_claims: OnLostClaims | None = None,
        on_ended: OnEnded | None = None,
        on_lost_work: OnLostWork | None = None,
    ) -> None:
        self._client = client
        self._interval = interval
        self._on_lost_claims = on_lost_claims
        self._on_ended = on_ended
        self._on_lost_work = on_lost_work
        self._condition = threading.Condition()
        self._sending = threading.Lock()
        self._beating: dict[str, _Beating] = {}
        self._thread: threading.Thread | None = None
        self._beats = self._failures = self._in_a_row = 0
        self._last_beat: float | None = None
        self._last_error: str | None = None
        self._lost: list[LostClaim] = []
        client.outage.on_end(self._service_is_back)

    def __enter__(self) -> HeartbeatManager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self, an_id: str, describe: Describe | None = None, *, supervisor_fence: int | None = None
    ) -> None:
        """Send heartbeats for a session or instance, now and then at every interval.

        ``describe`` gives the fields of each beat (``current_task_id``, ``context_percent``,
        ``activity``, ``git``, …). With a ``supervisor_fence`` it ends once another supervises it.
        """
        with self._condition:
            self._beating[an_id] = _Beating(describe, time.monotonic(), supervisor_fence)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="holdfast-heartbeat", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    def stop(self, an_id: str | None = None, *, wait: bool = True) -> None:
        """Stop the heartbeats for one, or for all. Waits up to 2 s for one under way."""
        with self._condition:
            if an_id is None:
                self._beating.clear()
            else:
                self._beating.pop(an_id, None)
            self._condition.notify_all()
        # A callback that stops the beating is in the midst of one.
        here = threading.current_thread()
        if not wait or here is self._thread:
            return
        if self._sending.acquire(timeout=STOP_SECONDS):
            self._sending.release()

    def is_active(self, an_id: str | None = None) -> bool:
        """Whether heartbeats are sent for this one, or for any."""
        with self._condition:
            return bool(self._beating) if an_id is None else an_id in self._beating

    def say(self, an_id: str, *, at_once: bool = False, **fields: Any) -> None:
        """Send these fields with every heartbeat from the next one on; ``None`` removes one.

        With ``at_once`` the next heartbeat is sent now.
        """
        with self._condition:
            beating = self._beating.get(an_id)
            if beating is not None:
                told = {**beating.said, **fields}
                beating.said = {name: value for name, value in told.items() if value is not None}
                if at_once:
                    beating.due = time.monotonic()
                    self._condition.notify_all()

    def force(self, an_id: str | None = None) -> bool:
        """Send heartbeats now, from this thread; returns whether all of them arrived."""
        with self._condition:
            ids = [*self._beating] if an_id is None else [an_id]
        arrived = [self._beat(one) for one in ids]
        return all(arrived)

    def stats(self) -> HeartbeatStats:
        """The current statistics."""
        now = time.monotonic()
        with self._condition:
            due = min((beating.due for beating in self._beating.values()), default=None)
            return HeartbeatStats(
                active=bool(self._beating),
                ids=[*self._beating],
                interval_seconds=self._interval,
                beats=self._beats,
                failures=self._failures,
                failures_in_a_row=self._in_a_row,
                degraded=self._degraded,
                last_beat_age_seconds=None if self._last_beat is None else now - self._last_beat,
                next_beat_in_seconds=None if due is None else max(due - now, 0.0),
                last_error=self._last_error,
                lost_claims=[*self._lost],
            )

    @property
    def _degraded(self) -> bool:
        return self._in_a_row >= FAILURES_UNTIL_DEGRADED

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._beating:
                    self._thread = None
                    return
                an_id, beating = min(self._beating.items(), key=lambda item: item[1].due)
                wait = beating.due - time.monotonic()
                if wait > 0:
                    self._condition.wait(wait)
                    continue
            try:
                self._beat(an_id)
            except Exception:
                # Whatever it is, the next one is due all the same.
                log.exception("A heartbeat for %s failed.", an_id)
                with self._condition:
                    self._plan(an_id)

    def _beat(self, an_id: str) -> bool:
        with self._sending:
            with self._condition:
                beating = self._beating.get(an_id)
                described = dict(beating.said) if beating else {}
                describe = beating.describe if beating else None
                fence = beating.fence if beating else None
            if describe is not None:
                described = {**self._described(describe), **described}
            error: HoldfastError | None = None
            lost: list[LostClaim] = []
            lost_work: object = None
            try:
                reply = self._send(an_id, described, fence)
            except HoldfastError as e:
                error = e
                self._failed(an_id, e)
            else:
                self._succeeded(an_id)
                lost = reply.get("lost_claims") or []
                lost_work = reply.get("lost_work")
        if error is not None and _is_over(error):
            self._end(an_id, error)
        if lost:
            self._lose(an_id, lost)
        if isinstance(lost_work, dict):
            self._lose_work(an_id, lost_work)
        return error is None

    def _send(self, an_id: str, fields: Json, fence: int | None) -> Json:
        kind = "sessions" if is_session(an_id) else "instances"
        proof = {} if fence is None else {"supervisor_fence": fence}
        request = Request("POST", f"/api/{kind}/{part(an_id)}/heartbeat", {**fields, **proof})
        try:
            reply = self._client.send(request, retries=0)
        except InvalidInput as e:
            # Whatever is wrong with what it says of itself, it is alive.
            log.warning("A heartbeat goes without its description, which was refused: %s", e)
            reply = self._client.send(request._replace(body=proof), retries=0)
        return reply if isinstance(reply, dict) else {}

    def _described(self, describe: Describe) -> Json:
        try:
            return {name: value for name, value in describe().items() if value is not None}
        except Exception:
            log.exception("A heartbeat goes without its description, which failed.")
            return {}

    def _succeeded(self, an_id: str) -> None:
        with self._condition:
            if self._degraded:
                log.info("Heartbeats arrive again, after %d that failed.", self._in_a_row)
            self._beats += 1
            self._in_a_row = 0
            self._last_error = None
            self._last_beat = time.monotonic()
            self._plan(an_id)

    def _failed(self, an_id: str, error: HoldfastError) -> None:
        with self._condition:
            self._failures += 1
            self._in_a_row += 1
            self._last_error = error.message
            if self._in_a_row == FAILURES_UNTIL_DEGRADED:
                log.warning(
                    "%d heartbeats in a row failed (%s). It goes on, less often.",
                    self._in_a_row,
                    error.message,
                )
            self._plan(an_id)

    def _plan(self, an_id: str) -> None:
        """When to beat next."""
        beating = self._beating.get(an_id)
        if beating is None:
            return
        beyond = self._in_a_row - FAILURES_UNTIL_DEGRADED
        stretched = min(1.5 ** max(beyond + 1, 0), LONGEST_PAUSE)
        jitter = random.uniform(1 - JITTER, 1.0)
        beating.due = time.monotonic() + self._interval * stretched * jitter

    def _end(self, an_id: str, error: HoldfastError) -> None:
        with self._condition:
            known = self._beating.pop(an_id, None) is not None
            self._in_a_row = 0
            self._condition.notify_all()
        if not known:
            return
        log.warning("No more heartbeats for %s: %s", an_id, error.message)
        if self._on_ended is not None:
            _call(self._on_ended, an_id, error)

    def _lose(self, an_id: str, lost: list[LostClaim]) -> None:
        with self._condition:
            self._lost += lost
        for claim in lost:
            to = claim["taken_by"] or "nobody: it was cancelled"
            log.warning("%s has lost %s to %s.", an_id, claim["item_id"], to)
        if self._on_lost_claims is not None:
            _call(self._on_lost_claims, an_id, lost)

    def _lose_work(self, an_id: str, lost: Json) -> None:
        """Tell once that an instance goes on although its work is another's."""
        with self._condition:
            beating = self._beating.get(an_id)
            if beating is None or beating.lost_at == lost.get("at"):
                return
            beating.lost_at = lost.get("at")
        log.warning("%s works without a session: %s.", an_id, told(lost))
        if self._on_lost_work is not None:
            _call(self._on_lost_work, an_id, lost)

    def _service_is_back(self) -> None:
        with self._condition:
            if self._in_a_row:
                for beating in self._beating.values():
                    beating.due = time.monotonic()
                self._condition.notify_all()


def _is_over(error: HoldfastError) -> bool:
    return isinstance(error, NotFound) or (isinstance(error, Conflict) and error.code in ENDED)


def _call(callback: Callable[..., None], *args: object) -> None:
    try:
        callback(*args)
    except Exception:
        log.exception("A callback of the heartbeat failed.")
