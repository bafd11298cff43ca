"""Queries on the read models; a read sees every write acknowledged before it (spec 9)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from application.eventstore import connect
from application.eventstore import sql as sql_files
from domain.errors import Unavailable
from projections.kernel.definition import Definition, folded, search_path
from projections.kernel.paging import Found as Found
from projections.kernel.paging import Order as Order
from projections.kernel.paging import Page as Page
from projections.kernel.progress import Progress

Row = dict[str, Any]
T = TypeVar("T")

WAIT_SECONDS = 1.0  # spec 9
# What is answered whole, without pages, has at most so many entries, and says if there are more.
WHOLE_MAX = 5_000
CANCEL_SECONDS = 2.0
# Between two looks at a position that another process may be moving.
LOOK_SECONDS = 0.02

log = logging.getLogger("holdfast.reads")

_SQL = sql_files.load("projections.kernel", "projector.sql")


class Freshness:
    """How current one request's reads are to be, and how current they were."""

    def __init__(self, min_position: int | None = None) -> None:
        self.min_position = min_position
        self.lag = 0


# Set by the face that serves the request.
freshness: ContextVar[Freshness] = ContextVar("freshness")
# Set by whoever has to find something before it can write, or runs by itself: no list that someone
# reads makes it wait.
before_writing: ContextVar[bool] = ContextVar("before_writing", default=False)


class Reads:
    """Queries over the live read models, each after the wait for the log's head."""

    def __init__(
        self,
        url: str,
        progress: Progress,
        defined: Sequence[Definition],
        *,
        stall_threshold_ms: int,
        instance_stale_seconds: float = 120,
        claim_stale_seconds: float = 300,
        size: int,
        writers_size: int = 4,
    ) -> None:
        self._thresholds: dict[str, float] = {
            "stall_threshold_ms": stall_threshold_ms,
            "instance_stale_seconds": instance_stale_seconds,
            "claim_stale_seconds": claim_stale_seconds,
        }
        info = connect.conninfo(
            url,
            search_path=search_path(each.place for each in defined),
            settings={f"holdfast.{name}": str(value) for name, value in self._thresholds.items()},
        )
        self._for_readers, self._for_writers = _pool(info, size), _pool(info, writers_size)
        self._progress = progress
        # The schemas of what the queries read, as far as it is folded.
        self.places = list(folded(defined))

    async def open(self) -> None:
        """Be ready for queries, and tell the thresholds to whoever asks the views past this."""
        await self._for_readers.open()
        await self._for_writers.open()
        parameters = {
            "names": list(self._thresholds),
            "values": list(map(float, self._thresholds.values())),
        }

        async def announce(connection: psycopg.AsyncConnection) -> None:
            await connection.execute(_SQL["announce"], parameters)

        try:
            with connect.told_apart():
                await self._with_connection(announce)
        except Unavailable:
            log.warning("thresholds_not_announced")

    async def close(self) -> None:
        """Close the connections."""
        await self._for_readers.close()
        await self._for_writers.close()

    @property
    def _pool(self) -> AsyncConnectionPool:
        return self._for_writers if before_writing.get() else self._for_readers

    async def one(self, query: str, namespace: str, **parameters: object) -> Row | None:
        """The only row of a query, or None."""
        rows = await self.all(query, namespace, **parameters)
        return rows[0] if rows else None

    async def all(self, query: str, namespace: str, **parameters: object) -> list[Row]:
        """All rows of a query over one namespace.

        Raises ``Unavailable`` when the database is away, ``TimedOut`` when it takes too long.
        """
        await self._caught_up(namespace)
        return await self._fetch(query, {"namespace": namespace, **parameters})

    async def page(
        self,
        sql: Mapping[str, str],
        order: Order,
        namespace: str,
        page: Page,
        **filters: object,
    ) -> Found:
        """A page of a list, and the number of all."""
        found, _ = await self.page_and_counts(sql, order, namespace, page, **filters)
        return found

    async def page_and_counts(
        self,
        sql: Mapping[str, str],
        order: Order,
        namespace: str,
        page: Page,
        **filters: object,
    ) -> tuple[Found, Row | None]:
        """A page of a list, and the row that counts all; None if the list is this page.

        The queries are those named as the order is, and ``…_count``; ``…_rest`` for the pages
        behind the first if the first has an order of its own. Raises ``InvalidInput`` for a cursor
        of another list.
        """
        place = page.place(order, filters)
        is_rest = page.cursor is not None and order.seen is not None
        rows = await self.all(
            sql[f"{order.name}_rest" if is_rest else order.name],
            namespace,
            limit=page.limit + 1,
            offset=page.offset,
            **place.parameters,
            **filters,
        )
        rows, has_more = rows[: page.limit], len(rows) > page.limit
        if page.cursor is None and not has_more and (rows or page.offset == 0):
            return Found(rows, has_more, page.offset + len(rows), place), None
        counting = sql[order.counting]
        [counted] = await self._fetch(counting, {"namespace": namespace, **filters})
        return Found(rows, has_more, counted["total_count"], place), counted

    async def namespaces(self) -> list[str]:
        """Every namespace that has events."""
        return [row["namespace"] for row in await self._fetch(_SQL["namespaces"], {})]

    async def head(self, namespace: str) -> int:
        """The position of a namespace's last event; 0 when there is none."""
        return (await self._positions(namespace))[0]

    async def _caught_up(self, namespace: str) -> None:
        fresh = freshness.get(None) or Freshness()
        deadline = time.monotonic() + WAIT_SECONDS
        target = fresh.min_position
        while True:
            head, projected = await self._positions(namespace)
            if target is None:
                target = head
            if projected >= target or time.monotonic() >= deadline:
                fresh.lag = max(0, target - projected)
                return
            await self._progress.wait(namespace, target, LOOK_SECONDS)

    async def _positions(self, namespace: str) -> tuple[int, int]:
        parameters = {"namespace": namespace, "places": self.places}
        row = (await self._fetch(_SQL["positions"], parameters))[0]
        return row["head"], row["projected"]

    async def _fetch(self, query: str, parameters: Mapping[str, object]) -> list[Row]:
        async def fetch(connection: psycopg.AsyncConnection) -> list[Row]:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            return await (await cursor.execute(query, parameters, prepare=True)).fetchall()

        with connect.told_apart():
            try:
                return await self._with_connection(fetch)
            except psycopg.OperationalError as e:
                if isinstance(e, psycopg.errors.QueryCanceled):
                    raise
                # Connections that were idle when the database went away are all broken: mend
                # the pool, then try once more. A query changes nothing.
                await self._pool.check()
                return await self._with_connection(fetch)

    async def _with_connection(self, use: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
        """Use a connection. Whoever is cancelled meanwhile leaves, and the query is ended.

        The connection is used in a task of its own, which is not cancelled: it could not give the
        connection back to the pool then, and after a few clients that went there would be none.
        """
        turn = _Turn()
        using = asyncio.ensure_future(turn.take(self._pool, use))
        try:
            return await asyncio.shield(using)
        except asyncio.CancelledError:
            using.add_done_callback(_ended)
            turn.leave()
            raise


class _Turn:
    """One use of a connection."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection | None = None
        self._is_left = False
        self._ending: asyncio.Task[None] | None = None

    async def take(
        self,
        pool: AsyncConnectionPool,
        use: Callable[[psycopg.AsyncConnection], Awaitable[T]],
    ) -> T:
        """Wait for a connection, and use it."""
        async with pool.connection() as connection:
            if self._is_left:
                raise Unavailable("Nobody waits for the answer any more.")
            self._connection = connection
            try:
                return await use(connection)
            finally:
                self._connection = None
                if self._ending is not None:
                    # Or it would end the query of whoever has the connection next.
                    await asyncio.wait({self._ending})

    def leave(self) -> None:
        """End the query that is under way, or do not begin it."""
        self._is_left = True
        if self._connection is not None:
            self._ending = asyncio.ensure_future(_cancelled(self._connection))


async def _cancelled(connection: psycopg.AsyncConnection) -> None:
    try:
        await connection.cancel_safe(timeout=CANCEL_SECONDS)
    except psycopg.Error as e:
        log.warning("query_not_cancelled", extra={"error": str(e).strip()})


def _ended(using: asyncio.Future[Any]) -> None:
    """Retrieve the result or error of an abandoned task, so that it is not reported."""
    if not using.cancelled():
        using.exception()


def _pool(info: str, size: int) -> AsyncConnectionPool:
    return AsyncConnectionPool(
        info,
        min_size=0,
        max_size=size,
        connection_class=connect.AsyncConnection,
        kwargs={"autocommit": True},
        configure=_configure,
        timeout=connect.WAIT_SECONDS,
        reconnect_timeout=connect.RECONNECT_SECONDS,
        max_waiting=connect.MAX_WAITING,
        open=False,
    )


async def _configure(connection: psycopg.AsyncConnection) -> None:
    connect.configure(connection)
    # A statement is prepared at its first use: every query here is used again and again.
    connection.prepare_threshold = 0
    await asyncio.sleep(0)
