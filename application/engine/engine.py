"""The command engine: one writer, group commit, every version proved by the append.

One thread carries out every command of this process. It takes the namespaces in turn. Of each it
takes the waiting commands, up to a number and a size, lets their handlers decide on in-memory
aggregates, and appends all their events in one statement. Commands that arrive meanwhile wait for
the next round. A command is acknowledged only once its events are durable (spec 3).

Other processes write to the same log. An append names the version of every stream that was
written *or read*, so a decision from an outdated aggregate, including a refusal, never stands: the
changed streams are loaded again and the commands are decided again.

When many commands wait, the next round is decided while the previous round is being appended, on
aggregates that are ahead of the log. Nothing of it is acknowledged before both are durable. If the
first append fails, the round on top of it is decided again (decision 11).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from application.engine.batch import Batch, Round, Tainted
from application.engine.clock import DatabaseClock
from application.engine.deciding import Decider
from application.engine.inbox import Inbox
from application.engine.serving import ServingRecord
from application.engine.snapshots import Snapshots
from application.engine.submission import Job, Submission, deliver
from application.engine.unit_of_work import (
    Context,
    Handler,
    Outcome,
    Policy,
)
from application.eventstore.mapper import Mapper
from application.eventstore.records import Appended, ReceiptConflict, VersionConflict
from application.eventstore.store import EventStore
from domain.aggregate import Aggregate
from domain.errors import HoldfastError, Unavailable, WriteConflict

log = logging.getLogger("holdfast.engine")

# A namespace's turn: the number of commands, and the bytes of requests and kept replies. The other
# namespaces wait while such a batch is stored.
BATCH_LIMIT = 1_000
BATCH_BYTES = 2 * 1024 * 1024
# Limits of the inbox, in all and per namespace. Parsed, requests take several times the memory.
INBOX_LIMIT = 50_000
INBOX_BYTES = 64 * 1024 * 1024
NAMESPACE_LIMIT = 20_000
NAMESPACE_BYTES = 16 * 1024 * 1024
# The minimum number of commands for deciding a round ahead. With fewer it is better to wait for
# more and store all with one append.
AHEAD_FROM = 250
OPTIMISTIC_ATTEMPTS = 3
ATTEMPTS = 5
CACHE_LIMIT = 200_000


class Engine:
    """Carries out commands. One per process; ``submit`` may be called from any event loop."""

    def __init__(
        self,
        store: EventStore,
        mapper: Mapper,
        handlers: Mapping[type, Handler],
        policy: Policy,
        serving: ServingRecord | None = None,
    ) -> None:
        """``serving`` tells when the service was reachable; without it, it always was."""
        self._store = store
        self._clock = DatabaseClock()
        self._serving = serving
        self._snapshots = Snapshots(store)
        self._decider = Decider(mapper, handlers, policy, self._clock, serving, self._snapshots)
        # When the current round began, and when one was last refused because the database was
        # away. Both by the host's clock.
        self._busy_since: float | None = None
        self._refused_at: float | None = None
        self._caches: dict[str, dict[str, Aggregate]] = {}
        self._inbox = Inbox()
        # Rounds taken from the inbox; the first may be decided already.
        self._rounds: deque[Round] = deque()
        self._appender = ThreadPoolExecutor(1, thread_name_prefix="holdfast-append")
        self._arrived = threading.Condition()
        self._stopping = False
        # Held while jobs are taken or answered, by the writer or by ``give_up``.
        self._answering = threading.Lock()
        self._current: Round | None = None
        self._given_up = threading.Event()
        self._idle = False
        self._thread = threading.Thread(target=self._run, name="holdfast-writer", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop(self, within_seconds: float | None = None) -> None:
        """Finish the accepted commands, then end the writer.

        Commands that are not finished within ``within_seconds`` are refused.
        """
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        if self._thread.is_alive():
            self._thread.join(within_seconds)
        is_stuck = self._thread.is_alive()
        self.give_up()
        self._appender.shutdown(wait=not is_stuck)

    def give_up(self) -> None:
        """Refuse every unfinished command, and all later ones.

        A command that is being appended may be stored all the same. Its sender is told
        ``Unavailable`` and can repeat it with the same idempotency key.
        """
        with self._answering:
            late = self._inbox.clear()
            if not self._given_up.is_set():
                # The writer no longer answers these.
                rounds = [self._current, *self._rounds]
                late += [job for one in rounds if one is not None for job in one.all]
            self._stopping = True
            self._given_up.set()
            refused = [job for job in late if job.outcome is None and job.error is None]
            _refuse(refused, Unavailable("The service is stopping. Try again."))
            deliver(late)
        if refused:
            log.warning("commands_given_up", extra={"commands": len(refused)})

    def answers(self, within_seconds: float) -> bool:
        """Whether a command sent now is likely to be carried out.

        False while a round has been under way for longer than ``within_seconds``, and for that
        long after one was refused because the database was away, unless one succeeded since.
        """
        now, busy_since, refused_at = self._clock.seconds(), self._busy_since, self._refused_at
        is_stuck = busy_since is not None and now - busy_since > within_seconds
        refuses = refused_at is not None and now - refused_at <= within_seconds
        return not (is_stuck or refuses)

    async def submit(self, command: object, context: Context) -> Outcome:
        """Carry out a command; return once its events are durable.

        Raises the :class:`~domain.errors.HoldfastError` that refused it. After ``Unavailable``
        it is unknown whether it was carried out: repeat it with the same idempotency key.
        """
        [result] = await self._through([(command, context)])
        try:
            if isinstance(result, BaseException):
                raise result
            return result
        finally:
            del result  # it would hold this frame, and be held by it

    async def submit_all(
        self, commands: Sequence[tuple[object, Context]]
    ) -> list[Outcome | BaseException]:
        """Carry out many commands. For each the outcome, or the error that refused it."""
        return await self._through(commands) if commands else []

    async def _through(
        self, commands: Sequence[tuple[object, Context]]
    ) -> list[Outcome | BaseException]:
        if self._stopping or self._is_full(commands[0][1].namespace):
            raise Unavailable("The service is stopping or overloaded. Try again.")
        submission = Submission(len(commands))
        jobs = [Job(command, context, submission) for command, context in commands]
        self._inbox.put(jobs)
        if self._given_up.is_set():
            self.give_up()
        if self._idle:
            with self._arrived:
                self._arrived.notify()
        await submission.through
        return [job.result for job in jobs]

    def _is_full(self, namespace: str) -> bool:
        """Whether the inbox is full, in all or for this namespace."""
        if len(self._inbox) >= INBOX_LIMIT or self._inbox.size >= INBOX_BYTES:
            return True
        count, size = self._inbox.of(namespace)
        return count >= NAMESPACE_LIMIT or size >= NAMESPACE_BYTES

    # The writer's thread

    def _run(self) -> None:
        while True:
            if not self._rounds:
                self._wait()
                self._take()
            with self._answering:
                if not self._rounds or self._given_up.is_set():
                    return
                current = self._current = self._rounds.popleft()
            self._busy_since = self._clock.seconds()
            try:
                self._carry_out(current)
            except Exception as e:
                # A bug, not a refusal. Answer the jobs, or their senders would wait for ever.
                log.exception("writer_failed")
                self._caches.clear()
                for ahead in self._rounds:
                    ahead.begin_anew()
                for job in current.all:
                    if job.outcome is None and job.error is None:
                        job.error = e
            self._busy_since = None
            with self._answering:
                if self._given_up.is_set():
                    return
                self._current = None
                deliver(current.all)

    def _wait(self) -> None:
        """Wait until a command arrives or the engine stops."""
        with self._arrived:
            while not self._inbox and not self._stopping:
                self._idle = True
                # The time-out covers a command that was put before the flag was seen.
                self._arrived.wait(timeout=0.05 if not self._inbox else 0)
                self._idle = False

    def _take(self) -> None:
        """Make a round of the next namespace's waiting commands, as many as one append may hold."""
        with self._answering:
            taken = self._inbox.take(BATCH_LIMIT, BATCH_BYTES)
            if taken is not None:
                self._rounds.append(Round(*taken))

    def _carry_out(self, current: Round) -> None:
        namespace = current.namespace
        attempt = 0
        while current.jobs and not self._given_up.is_set():
            attempt += 1
            # Optimistic first. After repeated conflicts, lock the log while deciding.
            exclusive = attempt > OPTIMISTIC_ATTEMPTS
            try:
                with (
                    self._store.exclusive(namespace)
                    if exclusive
                    else nullcontext(self._store) as store
                ):
                    batch = self._decide(store, current)
                    head = self._append(store, current, batch)
            except VersionConflict as conflict:
                self._undo(current, conflict.streams)
                if attempt >= ATTEMPTS:
                    _refuse(current.left, WriteConflict())
                    return
            except ReceiptConflict:
                self._undo(current)
            except Tainted as tainted:
                self._undo(current)
                current.jobs.remove(tainted.job)
                if tainted.stands:
                    tainted.job.error = tainted.error
                else:
                    # The refusal may rest on earlier commands of the batch: store those first.
                    current.postponed.append(tainted.job)
                if not current.jobs:
                    current.go_on()
                attempt -= 1
            except Unavailable as e:
                self._refused_at = self._clock.seconds()
                self._undo(current)
                self._cache(namespace).clear()
                _refuse(current.left, e)
                return
            except Exception as e:
                # Something in the batch cannot be stored. Carry the jobs out one by one to find it.
                self._undo(current)
                if len(current.left) == 1:
                    [job] = current.left
                    log.exception("command_failed", extra={"command": job.context.command})
                    job.error = e
                    return
                for job in current.left:
                    self._carry_out(Round(namespace, [job]))
                return
            else:
                self._refused_at = None
                if self._serving is not None:
                    self._serving.carried_out()
                _acknowledge(batch, head)
                self._snapshots.keep(namespace, batch.snapshots)
                if exclusive:
                    self._cache(namespace).update(batch.work.cache)
                _limit(self._cache(namespace))
                current.go_on()
                attempt = 0

    def _cache(self, namespace: str) -> dict[str, Aggregate]:
        return self._caches.setdefault(namespace, {})

    def _undo(self, failed: Round, moved: Sequence[str] = ()) -> None:
        """Drop outdated aggregates, and those with changes that were not stored.

        This includes a round that was decided on top of the failed one.
        """
        cache = self._cache(failed.namespace)
        for stream_id in moved:
            cache.pop(stream_id, None)
        for undone in (failed, *self._rounds):
            if undone.namespace != failed.namespace:
                continue
            if undone.batch is not None:
                for stream_id in (*undone.batch.versions, *undone.batch.work.seen):
                    cache.pop(stream_id, None)
            undone.begin_anew()

    def _decide(self, store: EventStore, current: Round) -> Batch:
        """Decide a round, unless it was decided ahead. Returns what to append."""
        if current.is_decided:
            assert current.batch is not None
            return current.batch
        # With the log locked, load everything again.
        cache = self._cache(current.namespace) if store is self._store else {}
        return self._decider.decide(store, current, cache, BATCH_BYTES)

    def _append(self, store: EventStore, current: Round, batch: Batch) -> int:
        """Append the batch and prove the versions it rests on. The position before its events."""
        expected = batch.read_only()
        if not (batch.rows or batch.receipts or expected):
            return store.head(current.namespace)
        ahead = None if store is not self._store or current.later else self._worth_deciding()
        if ahead is None:
            appended = self._stored(store, current.namespace, batch, expected)
        else:
            under_way = self._appender.submit(
                self._stored, store, current.namespace, batch, expected
            )
            try:
                self._decide(store, ahead)
            except Exception:
                # The error is raised again, and handled, when the round's turn comes.
                self._undo(ahead)
            appended = under_way.result()
        return appended.head - len(batch.rows)

    def _worth_deciding(self) -> Round | None:
        """The next round, if it has enough commands to be decided ahead."""
        if not self._rounds and self._inbox.next_count() >= AHEAD_FROM:
            self._take()
        if self._rounds and len(self._rounds[0].jobs) >= AHEAD_FROM:
            return self._rounds[0]
        return None

    def _stored(
        self, store: EventStore, namespace: str, batch: Batch, expected: Mapping[str, int]
    ) -> Appended:
        asked = self._clock.seconds()
        appended = store.append(namespace, batch.rows, expected, batch.receipts)
        self._clock.set(appended.written_at, asked)
        return appended


def _acknowledge(batch: Batch, head: int) -> None:
    for job, reply, body, last in batch.replies:
        job.outcome = Outcome(body, reply.status, head + last)


def _refuse(jobs: Iterable[Job], error: HoldfastError) -> None:
    for job in jobs:
        job.error = error


def _limit(cache: dict[str, Aggregate]) -> None:
    """Drop the quarter that was loaded longest ago once the cache is too large."""
    if len(cache) > CACHE_LIMIT:
        for stream_id in list(cache)[: CACHE_LIMIT // 4]:
            del cache[stream_id]
