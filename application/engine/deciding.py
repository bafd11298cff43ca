"""Deciding: the handlers run on aggregates in memory; what comes of it waits to be stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import orjson

from application.engine.batch import Batch, Round, Tainted
from application.engine.clock import DatabaseClock
from application.engine.fields import Dated
from application.engine.serving import ServingRecord
from application.engine.snapshots import Snapshots
from application.engine.submission import Job
from application.engine.unit_of_work import (
    Handler,
    IdempotencyKey,
    Missing,
    Outcome,
    Policy,
    UnitOfWork,
)
from application.eventstore.mapper import Mapper
from application.eventstore.records import Receipt
from application.eventstore.store import EventStore
from domain.aggregate import Aggregate, Json
from domain.errors import HoldfastError, IdempotencyMismatch

log = logging.getLogger("holdfast.engine")

# A handler that closes a hierarchy loads level by level; others load two or three times.
MAX_ROUNDS = 100


class Decider:
    """Runs the handlers of a round. Used by the writer's thread only."""

    def __init__(
        self,
        mapper: Mapper,
        handlers: Mapping[type, Handler],
        policy: Policy,
        clock: DatabaseClock,
        serving: ServingRecord | None,
        snapshots: Snapshots,
    ) -> None:
        self._mapper = mapper
        self._handlers = handlers
        self._policy = policy
        self._clock = clock
        self._serving = serving
        self._snapshots = snapshots

    def decide(
        self, store: EventStore, current: Round, cache: dict[str, Aggregate], most_bytes: int
    ) -> Batch:
        """Decide a round with the aggregates in the cache. Returns what to append.

        Jobs beyond so many bytes are postponed. Raises :class:`Tainted`.
        """
        namespace = current.namespace
        current.jobs, later = self._answer_repeats(store, namespace, current.jobs)
        current.later += later
        batch = Batch(self._unit_of_work(store, cache))
        current.batch = batch
        waiting: Sequence[Job] = current.jobs
        rounds = 0
        while waiting:
            rounds += 1
            if rounds > MAX_ROUNDS:
                raise RuntimeError("a handler asks for ever more aggregates")
            missing: dict[str, type[Aggregate]] = {}
            again: list[Job] = []
            for number, job in enumerate(waiting):
                if batch.size > most_bytes:
                    _leave(current, [*again, *waiting[number:]])
                    again, missing = [], {}
                    break
                try:
                    self._decide_one(batch, job)
                except Missing as e:
                    missing.update(e.streams)
                    again.append(job)
                except Tainted as tainted:
                    if not batch.rows:
                        store.append(namespace, [], batch.first_seen())
                        tainted.stands = True
                    raise
            if missing:
                self._load(store, namespace, cache, missing)
            waiting = again
        # Taken now: by the time the batch is stored, its aggregates may be ahead of it.
        batch.snapshots = self._snapshots.due(namespace, batch)
        current.is_decided = True
        return batch

    def _answer_repeats(
        self, store: EventStore, namespace: str, jobs: list[Job]
    ) -> tuple[list[Job], list[Job]]:
        """Answer repeated requests from their receipts; return the jobs for now and for later.

        If two requests with one key are in a batch, the second waits for the first one's receipt.
        """
        asked = [job.context.idempotency for job in jobs if job.context.idempotency]
        if not asked:
            return jobs, []
        keys = {key.receipt_key for key in asked}
        earlier = {key.earlier for key in asked if key.earlier is not None}
        known = {r.receipt_key: r for r in store.receipts(namespace, [*keys, *earlier])}
        now: list[Job] = []
        later: list[Job] = []
        for job in jobs:
            key = job.context.idempotency
            if key is None:
                now.append(job)
            elif (
                receipt := known.get(key.receipt_key) or known.get(key.earlier or "")
            ) is not None:
                _repeat(job, key, receipt)
            elif key.receipt_key in keys:
                keys.remove(key.receipt_key)
                now.append(job)
            else:
                later.append(job)
        return now, later

    def _unit_of_work(self, store: EventStore, cache: dict[str, Aggregate]) -> UnitOfWork:
        """The unit of work for a batch, with the time and when the service was reachable."""
        now = self._clock.now(store.clock)
        if self._serving is None:
            return UnitOfWork(self._policy, cache, now)
        serving = self._serving.at(now)
        # The two values come from two reads of the database's clock.
        return UnitOfWork(self._policy, cache, max(now, serving.since or now), serving)

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
            # The traceback refers to this frame and so to the job: a reference cycle.
            job.error = e.with_traceback(None)
            batch.versions = batch.first_seen()
            return
        origin = None
        for stream_id, aggregate in work.seen.items():
            events = aggregate.collect_events()
            batch.versions.setdefault(stream_id, aggregate.version - len(events))
            if events:
                batch.written[stream_id] = aggregate
                origin = origin or job.context.origin(_tags(work, job.command))
                batch.rows += self._mapper.rows(events, origin)
                batch.written_bytes[stream_id] = (
                    batch.written_bytes.get(stream_id, 0) + job.context.size
                )
        body = orjson.dumps(reply.value, option=orjson.OPT_UTC_Z)
        batch.replies.append((job, reply, body, len(batch.rows)))
        batch.size += job.context.size
        key = job.context.idempotency
        if key is not None:
            batch.size += len(body)
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


def _tags(work: UnitOfWork, command: object) -> Json | None:
    """Metadata for a command's events: its handler's tags, and the client's clock."""
    told = command.told_at(work.now) if isinstance(command, Dated) else None
    return {**told, **(work.tags or {})} if told else work.tags


def _leave(current: Round, jobs: Sequence[Job]) -> None:
    """Postpone jobs until what is decided so far is stored."""
    current.later += jobs
    left = set(map(id, jobs))
    current.jobs = [job for job in current.jobs if id(job) not in left]


def _repeat(job: Job, key: IdempotencyKey, receipt: Receipt) -> None:
    if receipt.request_hash != key.request_hash:
        job.error = IdempotencyMismatch()
        return
    job.outcome = Outcome(receipt.body.encode(), receipt.status, receipt.position)
