"""The background jobs: the sweep that records stalls, and the daily clean-up (spec 5, 8).

A job finds candidates by index and issues a command for each; the aggregate decides again with
its newest events, so a heartbeat that arrives in between wins. Every process runs the scheduler;
a row in the database lets one of them do each round, and two doing it would do no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import orjson

from application.engine.engine import Engine
from application.engine.unit_of_work import Context
from application.eventstore.outage import Outage
from application.eventstore.store import EventStore
from application.instances import ClosePassedOn, NoteStale
from application.sessions import CleanUpSession, EndPassedOn, NoteOverdue
from domain.aggregate import Json
from domain.errors import HoldfastError, Unavailable
from interfaces.operations import ActionResult
from projections import instances, sessions
from projections.kernel.reads import Reads, before_writing

log = logging.getLogger("holdfast.jobs")

ACTOR = "service"
AT_ONCE = 500
CLEAN_UP_HOUR_UTC = 2  # S4 3.4


class Jobs:
    """The sweep and the clean-up, on demand and on schedule."""

    def __init__(
        self,
        engine: Engine,
        reads: Reads,
        store: EventStore,
        *,
        sweep_seconds: float,
        passed_on_seconds: float,
        retention: timedelta,
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._store = store
        self._sweep_seconds = sweep_seconds
        self._passed_on_seconds = passed_on_seconds
        self._retention = retention
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the schedule in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the schedule."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def detect_failures(self, context: Context) -> ActionResult:
        """Record every stalled session and stale instance of a namespace (S0 AC7, S4 3.2.c)."""
        started = time.perf_counter()
        overdue = await sessions.overdue(self._reads, context.namespace)
        noted, position = await self._each([NoteOverdue(session_id=s) for s in overdue], context)
        stalled = [session for session in noted if session["stalled"]]
        for session in stalled:
            log.warning(
                "session_stalled",
                extra={k: v for k, v in session.items() if k != "stalled"},
            )
        silent = await instances.silent(self._reads, context.namespace)
        found, stale_position = await self._each(
            [NoteStale(instance_id=i) for i in silent], context
        )
        stale = [instance for instance in found if instance["stale"]]
        for instance in stale:
            log.warning("instance_stale", extra={k: v for k, v in instance.items() if k != "stale"})
        ended, ended_position = await self._end_passed_on(context)
        position = max(position, stale_position, ended_position)
        value: Json = {
            "stalled": len(stalled),
            "instances_stale": len(stale),
            "ended": ended,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        }
        return await self._result(context, value, position)

    async def _end_passed_on(self, context: Context) -> tuple[int, int]:
        """End sessions and instances whose work passed to others; the number, the last position."""
        namespace, seconds = context.namespace, self._passed_on_seconds
        superseded = await sessions.passed_on(self._reads, namespace)
        commands: list[object] = [EndPassedOn(session_id=s) for s in superseded]
        done, position = await self._each(commands, context)
        commands = []
        for instance_id in await instances.passed_on(self._reads, namespace, seconds):
            named_by = await sessions.of_instance(self._reads, namespace, instance_id)
            commands.append(
                ClosePassedOn(instance_id=instance_id, silent_seconds=seconds, sessions=named_by)
            )
        more, last = await self._each(commands, context)
        ended = [one for one in (*done, *more) if one["ended"]]
        for one in ended:
            log.info("ended", extra={k: v for k, v in one.items() if k != "ended"})
        return len(ended), max(position, last)

    async def clean_up(self, context: Context, older_than: timedelta | None) -> ActionResult:
        """Delete the sessions that ended longer ago than that (S4 3.4.a, e)."""
        now = await asyncio.to_thread(self._store.clock)
        before = now - (self._retention if older_than is None else older_than)
        expired = await sessions.expired(self._reads, context.namespace, before)
        commands = [CleanUpSession(session_id=s, ended_before=before) for s in expired]
        done, position = await self._each(commands, context)
        deleted = [session for session in done if session["deleted_tasks"] is not None]
        for session in deleted:
            log.info("session_cleaned_up", extra=session)
        value: Json = {
            "deleted_sessions": len(deleted),
            "deleted_tasks": sum(session["deleted_tasks"] for session in deleted),
        }
        return await self._result(context, value, position)

    async def _each(self, commands: Sequence[object], context: Context) -> tuple[list[Json], int]:
        """Carry out all commands, many at a time; the replies, and the last position written."""
        replies: list[Json] = []
        position = 0
        # The request's idempotency key is for the whole, not for each of its commands.
        context = context._replace(idempotency=None)
        for start in range(0, len(commands), AT_ONCE):
            some = commands[start : start + AT_ONCE]
            outcomes = await self._engine.submit_all([(command, context) for command in some])
            for outcome in outcomes:
                if isinstance(outcome, Unavailable):
                    raise outcome
                if isinstance(outcome, HoldfastError):
                    continue  # it ended, or went, since it was found
                if isinstance(outcome, BaseException):
                    raise outcome
                replies.append(orjson.loads(outcome.body))
                position = max(position, outcome.position)
        return replies, position

    async def _result(self, context: Context, value: Json, position: int) -> ActionResult:
        if position == 0:
            position = await asyncio.to_thread(self._store.head, context.namespace)
        return ActionResult(value, position)

    # The schedule

    async def _run(self) -> None:
        before_writing.set(True)
        outage = Outage(log, "jobs_wait_for_database")
        while True:
            try:
                await self._if_due("sweep", self._sweep_period(), self._sweep)
                now = await asyncio.to_thread(self._store.clock)
                await self._if_due("clean_up", _since_clean_up_hour(now), self._daily)
                outage.is_over()
            except HoldfastError as e:
                outage.goes_on(e.message)
            except Exception:
                log.exception("job_failed")
            await asyncio.sleep(self._sweep_seconds)

    async def _if_due(
        self, job: str, period: timedelta, run: Callable[[], Awaitable[None]]
    ) -> None:
        if await asyncio.to_thread(self._store.begin_job, job, period):
            await run()
            await asyncio.to_thread(self._store.end_job, job)

    def _sweep_period(self) -> timedelta:
        # A little less than the pause between two rounds, or the one that ran last would find its
        # own run too recent every other time.
        return timedelta(seconds=self._sweep_seconds * 0.9)

    async def _sweep(self) -> None:
        started = time.perf_counter()
        stalled = 0
        for namespace in await self._reads.namespaces():
            result = await self.detect_failures(_context(namespace, "sweep"))
            stalled += result.value["stalled"]
        log.log(
            logging.INFO if stalled else logging.DEBUG,
            "job_done",
            extra={
                "job_name": "sweep",
                "sessions_affected": stalled,
                "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            },
        )

    async def _daily(self) -> None:
        started = time.perf_counter()
        deleted = 0
        for namespace in await self._reads.namespaces():
            result = await self.clean_up(_context(namespace, "clean_up"), None)
            deleted += result.value["deleted_sessions"]
            await asyncio.to_thread(self._store.forget_receipts, namespace)
        log.info(
            "job_done",
            extra={
                "job_name": "clean_up",
                "sessions_affected": deleted,
                "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            },
        )


def _since_clean_up_hour(now: datetime) -> timedelta:
    last = now.replace(hour=CLEAN_UP_HOUR_UTC, minute=0, second=0, microsecond=0)
    return now - (last if last <= now else last - timedelta(days=1))


def _context(namespace: str, command: str) -> Context:
    return Context(namespace, ACTOR, str(uuid4()), command)
