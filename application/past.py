"""Reads of the history from event loops, on threads and connections of their own.

A search through a long stream may take seconds. It delays other searches only: commands and
background jobs use other connections and threads, and one namespace gets no more than its share of
these. When the client has disconnected, its query is cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from application.eventstore import connect
from application.eventstore.mapper import Mapper
from application.eventstore.store import EventStore
from application.history import History
from domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

P = ParamSpec("P")
T = TypeVar("T")

# How many run at once, in all and per namespace: of reads that use an index, and of searches, which
# look at every event of a stream.
READERS, READERS_EACH = 4, 3
SEARCHERS, SEARCHERS_EACH = 3, 2
# Seconds that a read waits for its turn.
TURN_SECONDS = 10.0
# How many reads of one namespace may wait.
MAX_WAITING = 200
CANCEL_SECONDS = 2.0


class Past:
    """The history, with two separate pools: one for reads, one for searches."""

    def __init__(self, url: str, mapper: Mapper) -> None:
        # No parallel workers: a search takes one of the database's processes.
        info = connect.conninfo(url, settings={"max_parallel_workers_per_gather": "0"})
        self._reads = _Lane(info, mapper, READERS, READERS_EACH)
        self._searches = _Lane(info, mapper, SEARCHERS, SEARCHERS_EACH)

    async def ask(
        self,
        read: Callable[Concatenate[History, str, P], T],
        namespace: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read that uses an index. Raises ``Unavailable`` if too many wait."""
        return await self._reads.ask(namespace, partial(_call, read, namespace, args, kwargs))

    async def search(
        self,
        read: Callable[Concatenate[History, str, P], T],
        namespace: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read that may look at every event of a stream. Raises as :meth:`ask`."""
        return await self._searches.ask(namespace, partial(_call, read, namespace, args, kwargs))

    def close(self) -> None:
        """Close the connections."""
        self._reads.close()
        self._searches.close()


def _call(
    read: Callable[..., T],
    namespace: str,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    history: History,
) -> T:
    return read(history, namespace, *args, **kwargs)


class _Lane:
    def __init__(self, info: str, mapper: Mapper, size: int, each: int) -> None:
        self._pool = connect.pool(info, size, checked=True)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="holdfast-past")
        self._cancelling = ThreadPoolExecutor(1, thread_name_prefix="holdfast-cancel")
        self._mapper = mapper
        self._each = each
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._waiting: dict[str, int] = {}

    async def ask(self, namespace: str, read: Callable[[History], T]) -> T:
        async with self._turn(namespace):
            store = _CancellableStore(self._pool)
            history = History(store, self._mapper)
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._threads, read, history)
            except asyncio.CancelledError:
                self._cancelling.submit(store.cancel)
                raise

    @asynccontextmanager
    async def _turn(self, namespace: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(namespace, asyncio.Semaphore(self._each))
        waiting = self._waiting.get(namespace, 0)
        if waiting >= MAX_WAITING:
            raise Unavailable("Too many reads of the history at once. Try again.")
        self._waiting[namespace] = waiting + 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
        except TimeoutError:
            raise Unavailable("Too many reads of the history at once. Try again.") from None
        finally:
            self._waiting[namespace] -= 1
        try:
            yield
        finally:
            turn.release()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._cancelling.shutdown(wait=False, cancel_futures=True)
        self._pool.close()


class _CancellableStore(EventStore):
    """The store for one read; another thread can cancel it."""

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__(pool)
        self._connection = self._watched
        self._lock = threading.Lock()
        self._running: psycopg.Connection | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Cancel the running query, and refuse later ones."""
        with self._lock:
            self._cancelled.set()
            if self._running is not None:
                self._running.cancel_safe(timeout=CANCEL_SECONDS)

    @contextmanager
    def _watched(self) -> Iterator[psycopg.Connection]:
        with self._pool.connection() as connection:
            with self._lock:
                if self._cancelled.is_set():
                    raise Unavailable("Nobody waits for the answer any more.")
                self._running = connection
            try:
                yield connection
            finally:
                with self._lock:
                    self._running = None
                    if self._cancelled.is_set():
                        # The cancellation may still be under way: drop the connection.
                        connection.close()
