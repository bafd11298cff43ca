"""The command engine: one writer, group commit, every version proved by the append.

One thread carries out every command of this process. It takes all that are waiting, lets each
handler decide on in-memory aggregates, and appends all their events in one statement; commands
that arrive meanwhile wait for the next round. A client hears of success only once its events are
durable (spec 3).

Other processes write to the same log. An append names the version of every stream that was
written *or read*, so a decision from an outdated aggregate, a refusal included, never stands: what
moved is loaded again and the commands are decided again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import orjson

from application.clock import DatabaseClock
from application.eventstore.mapper import Mapper, NewRow
from application.eventstore.store import (
    EventStore,
    NewReceipt,
    Receipt,
    ReceiptConflict,
    VersionConflict,
)
from application.work import Context, Handler, IdempotencyKey, Missing, Outcome, Policy, Reply, Work
from domain.aggregate import Aggregate, Json
from domain.errors import HoldfastError, IdempotencyMismatch, Unavailable, WriteConflict

log = logging.getLogger("holdfast.engine")

BATCH_LIMIT = 1_000
INBOX_LIMIT = 20_000
OPTIMISTIC_ATTEMPTS = 3
ATTEMPTS = 5
# A handler that closes a hierarchy asks level by level, others two or three times.
MAX_ROUNDS = 100
SNAPSHOT_EVERY = 100
# A large state is worth a snapshot less often, or snapshots would outgrow the events.
LARGE_STATE_BYTES = 4_096
SNAPSHOT_LARGE_EVERY = 1_000
CACHE_LIMIT = 200_000


@dataclass(slots=True, eq=False)
class Job:
    """A command on its way, and whom to tell."""

    command: object
    context: Context
    future: asyncio.Future[Outcome]
    loop: asyncio.AbstractEventLoop
    outcome: Outcome | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Batch:
    """What one append is to write, and for whom."""

    work: Work
    rows: list[NewRow] = field(default_factory=list)
    receipts: list[NewReceipt] = field(default_factory=list)
    replies: list[tuple[Job, Reply, bytes, int]] = field(default_factory=list)
    # The version at which each stream was first seen in this batch.
    versions: dict[str, int] = field(default_factory=dict)
    written: dict[str, Aggregate] = field(default_factory=dict)

    def read_only(self) -> dict[str, int]:
        """The streams that decisions rest on and that this append does not write."""
        return {s: v for s, v in self.versions.items() if s not in self.written}


class Tainted(Exception):
    """A command was refused half-way through changing aggregates: the batch starts anew."""

    def __init__(self, job: Job, error: BaseException) -> None:
        super().__init__(str(error))
        self.job = job
        self.error = error


class Engine:
    """Carries out commands. One instance a process; ``submit`` from any event loop."""

    def __init__(
        self,
        store: EventStore,
        mapper: Mapper,
        handlers: Mapping[type, Handler],
        policy: Policy,
    ) -> None:
        self._store = store
        self._mapper = mapper
        self._handlers = handlers
        self._policy = policy
        self._clock = DatabaseClock()
        self._caches: dict[str, dict[str, Aggregate]] = {}
        self._inbox: deque[Job] = deque()
        self._arrived = threading.Condition()
        self._stopping = False
        self._idle = False
        self._thread = threading.Thread(target=self._run, name="holdfast-writer", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the commands that were accepted, then end."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        if self._thread.is_alive():
            self._thread.join()
        late = list(self._inbox)
        self._inbox.clear()
        _refuse(late, Unavailable("The service is stopping. Try again."))
        _deliver(late)

    async def submit(self, command: object, context: Context) -> Outcome:
        """Carry out a command; returns once its events are durable.

        Raises the :class:`~domain.errors.HoldfastError` that refused it. ``Unavailable`` leaves
        open whether it was carried out: send it again with an idempotency key.
        """
        return await self._accept([(command, context)])[0]

    async def submit_all(
        self, commands: Sequence[tuple[object, Context]]
    ) -> list[Outcome | BaseException]:
        """Carry out many commands; the outcome of each, or the error that refused it."""
        futures = self._accept(commands)
        await asyncio.wait(futures)
        return [future.exception() or future.result() for future in futures]

    def _accept(self, commands: Sequence[tuple[object, Context]]) -> list[asyncio.Future[Outcome]]:
        if self._stopping or len(self._inbox) >= INBOX_LIMIT:
            raise Unavailable("The service is stopping or overloaded. Try again.")
        loop = asyncio.get_running_loop()
        jobs = [Job(c, context, loop.create_future(), loop) for c, context in commands]
        self._inbox.extend(jobs)
        if self._idle:
            with self._arrived:
                self._arrived.notify()
        return [job.future for job in jobs]

    # The writer's thread

    def _run(self) -> None:
        while True:
            jobs = self._take()
            if not jobs:
                return
            try:
                for namespace, group in _grouped(jobs):
                    self._carry_out(namespace, group)
            except Exception as e:
                # A defect, not a refusal: nobody may wait for ever because of it.
                log.exception("writer_failed")
                self._caches.clear()
                for job in jobs:
                    if job.outcome is None and job.error is None:
                        job.error = e
            _deliver(jobs)

    def _take(self) -> list[Job]:
        with self._arrived:
            while not self._inbox:
                if self._stopping:
                    return []
                self._idle = True
                # An append to the inbox that missed the flag is seen after a moment all the same.
                self._arrived.wait(timeout=0.05 if not self._inbox else 0)
                self._idle = False
        jobs: list[Job] = []
        while self._inbox and len(jobs) < BATCH_LIMIT:
            jobs.append(self._inbox.popleft())
        return jobs

    def _carry_out(self, namespace: str, jobs: list[Job]) -> None:
        cache = self._caches.setdefault(namespace, {})
        attempt = 0
        while jobs:
            attempt += 1
            # Optimism first; a writer that keeps losing holds the log while it decides.
            exclusive = attempt > OPTIMISTIC_ATTEMPTS
            batch: Batch | None = None
            later: list[Job] = []
            try:
                with (
                    self._store.exclusive(namespace)
                    if exclusive
                    else nullcontext(self._store) as store
                ):
                    jobs, later = self._answer_repeats(store, namespace, jobs)
                    batch = Batch(Work(self._policy, cache, self._clock.now(store.clock)))
                    self._decide(store, namespace, cache, batch, jobs)
                    head = self._append(store, namespace, batch)
            except VersionConflict as conflict:
                _evict(cache, batch, conflict.streams)
                jobs = [*jobs, *later]
                if attempt >= ATTEMPTS:
                    _refuse(jobs, WriteConflict())
                    return
            except ReceiptConflict:
                _evict(cache, batch, ())
                jobs = [*jobs, *later]
            except Tainted as tainted:
                _evict(cache, batch, ())
                tainted.job.error = tainted.error
                jobs = [job for job in (*jobs, *later) if job is not tainted.job]
                attempt -= 1
            except Unavailable as e:
                cache.clear()
                _refuse([*jobs, *later], e)
                return
            except Exception as e:
                # Something in the batch cannot be stored. Alone it shows which, and harms nobody.
                _evict(cache, batch, ())
                alone = [*jobs, *later]
                if len(alone) == 1:
                    log.exception("command_failed", extra={"command": alone[0].context.command})
                    alone[0].error = e
                    return
                for job in alone:
                    self._carry_out(namespace, [job])
                return
            else:
                _acknowledge(batch, head)
                self._keep_snapshots(namespace, batch)
                _limit(cache)
                jobs, attempt = later, 0

    def _answer_repeats(
        self, store: EventStore, namespace: str, jobs: list[Job]
    ) -> tuple[list[Job], list[Job]]:
        """Answer what was asked before from its receipt; the jobs for now, and for the next round.

        Two requests with one key in one batch: the second waits for the first one's receipt.
        """
        keys = {job.context.idempotency.receipt_key for job in jobs if job.context.idempotency}
        if not keys:
            return jobs, []
        known = {r.receipt_key: r for r in store.receipts(namespace, list(keys))}
        now: list[Job] = []
        later: list[Job] = []
        for job in jobs:
            key = job.context.idempotency
            if key is None:
                now.append(job)
            elif key.receipt_key in known:
                _repeat(job, key, known[key.receipt_key])
            elif key.receipt_key in keys:
                keys.remove(key.receipt_key)
                now.append(job)
            else:
                later.append(job)
        return now, later

    def _decide(
        self,
        store: EventStore,
        namespace: str,
        cache: dict[str, Aggregate],
        batch: Batch,
        jobs: Sequence[Job],
    ) -> None:
        waiting = jobs
        rounds = 0
        while waiting:
            rounds += 1
            if rounds > MAX_ROUNDS:
                raise RuntimeError("a handler asks for ever more aggregates")
            missing: dict[str, type[Aggregate]] = {}
            again = []
            for job in waiting:
                try:
                    self._decide_one(batch, job)
                except Missing as e:
                    missing.update(e.streams)
                    again.append(job)
            if missing:
                self._load(store, namespace, cache, missing)
            waiting = again

    def _decide_one(self, batch: Batch, job: Job) -> None:
        work = batch.work
        work.begin(job.context.request_id)
        job.error = None
        try:
            reply = self._handlers[type(job.command)](work, job.command)
        except Missing:
            if any(aggregate.pending for aggregate in work.seen.values()):
                raise RuntimeError(f"{type(job.command).__name__} loads after a verb") from None
            raise
        except Exception as e:
            if not isinstance(e, HoldfastError):
                log.exception("handler_failed", extra={"command": job.context.command})
            if any(aggregate.pending for aggregate in work.seen.values()):
                raise Tainted(job, e) from e
            job.error = e
            for stream_id, aggregate in work.seen.items():
                batch.versions.setdefault(stream_id, aggregate.version)
            return
        origin = None
        for stream_id, aggregate in work.seen.items():
            events = aggregate.collect_events()
            batch.versions.setdefault(stream_id, aggregate.version - len(events))
            if events:
                batch.written[stream_id] = aggregate
                origin = origin or job.context.origin(work.tags)
                batch.rows += self._mapper.rows(events, origin)
        body = orjson.dumps(reply.value, option=orjson.OPT_UTC_Z)
        batch.replies.append((job, reply, body, len(batch.rows)))
        key = job.context.idempotency
        if key is not None:
            batch.receipts.append(
                {
                    "receipt_key": key.receipt_key,
                    "request_hash": key.request_hash,
                    "status": reply.status,
                    "body": orjson.Fragment(body),
                    "last": len(batch.rows),
                }
            )

    def _load(
        self,
        store: EventStore,
        namespace: str,
        cache: dict[str, Aggregate],
        missing: Mapping[str, type[Aggregate]],
    ) -> None:
        for stream_id, cls in missing.items():
            cache[stream_id] = cls(id=stream_id)
        rows = store.load(namespace, {s: cls.state_version for s, cls in missing.items()})
        for row in rows:
            if row.event_type is None:
                cache[row.stream_id] = missing[row.stream_id].from_state(row.data)
                continue
            assert row.timestamp is not None
            assert row.metadata is not None
            cache[row.stream_id].mutate(
                self._mapper.event(
                    row.stream_id,
                    row.sequence_num,
                    row.event_type,
                    row.timestamp,
                    row.data,
                    row.metadata,
                )
            )

    def _append(self, store: EventStore, namespace: str, batch: Batch) -> int:
        """Write the batch and prove every version it rests on; the position before its events."""
        expected = batch.read_only()
        if not (batch.rows or batch.receipts or expected):
            return store.head(namespace)
        asked = self._clock.seconds()
        appended = store.append(namespace, batch.rows, expected, batch.receipts)
        self._clock.set(appended.written_at, asked)
        return appended.head - len(batch.rows)

    def _keep_snapshots(self, namespace: str, batch: Batch) -> None:
        due: list[Json] = []
        for stream_id, aggregate in batch.written.items():
            before = batch.versions[stream_id]
            if not _crossed(before, aggregate.version, SNAPSHOT_EVERY):
                continue
            state = orjson.dumps(aggregate.state())
            if len(state) > LARGE_STATE_BYTES and not _crossed(
                before, aggregate.version, SNAPSHOT_LARGE_EVERY
            ):
                continue
            due.append(
                {
                    "stream_id": stream_id,
                    "sequence_num": aggregate.version,
                    "state_version": aggregate.state_version,
                    "state": orjson.Fragment(state),
                }
            )
        if not due:
            return
        try:
            self._store.insert_snapshots(namespace, due)
        except Unavailable:
            log.warning("snapshots_not_kept")  # a shortcut lost, nothing else


def _grouped(jobs: Iterable[Job]) -> Iterable[tuple[str, list[Job]]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.context.namespace, []).append(job)
    return groups.items()


def _repeat(job: Job, key: IdempotencyKey, receipt: Receipt) -> None:
    if receipt.request_hash != key.request_hash:
        job.error = IdempotencyMismatch()
        return
    job.outcome = Outcome(receipt.body.encode(), receipt.status, receipt.position)


def _acknowledge(batch: Batch, head: int) -> None:
    for job, reply, body, last in batch.replies:
        job.outcome = Outcome(body, reply.status, head + last)


def _refuse(jobs: Iterable[Job], error: HoldfastError) -> None:
    for job in jobs:
        job.error = error


def _evict(cache: dict[str, Aggregate], batch: Batch | None, streams: Sequence[str]) -> None:
    """Forget what is out of date, and what carries changes that were not stored."""
    for stream_id in streams:
        cache.pop(stream_id, None)
    if batch is None:
        return
    for stream_id in (*batch.versions, *batch.work.seen):
        cache.pop(stream_id, None)


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies between the versions, the later one included."""
    return after // every > before // every


def _limit(cache: dict[str, Aggregate]) -> None:
    """Drop the aggregates that were loaded longest ago, a quarter at a time."""
    if len(cache) > CACHE_LIMIT:
        for stream_id in list(cache)[: CACHE_LIMIT // 4]:
            del cache[stream_id]


def _deliver(jobs: Sequence[Job]) -> None:
    """Hand over all outcomes of a batch with one call for each event loop."""
    loops = {job.loop for job in jobs}
    for loop in loops:
        ours = jobs if len(loops) == 1 else [job for job in jobs if job.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle, ours)
        except RuntimeError:
            log.warning("nobody_waits_any_more")  # the loop was closed while stopping


def _settle(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue  # whoever asked has gone
        if job.outcome is not None:
            job.future.set_result(job.outcome)
        else:
            job.future.set_exception(job.error or RuntimeError("no outcome"))
