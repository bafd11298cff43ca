"""Connections to Postgres, made the same way everywhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import orjson
import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from application.eventstore import outage
from domain.errors import TimedOut, Unavailable

SERVICE_ROLE = "holdfast_service"
STATEMENT_TIMEOUT_SECONDS = 10  # S4 5.2
# A process that freezes within a transaction keeps its locks on a namespace's log or read-model
# position. No live process pauses for this long.
IDLE_SECONDS = 5
# A frozen server cannot end a statement; the client gives up this many seconds later.
ANSWER_SECONDS = STATEMENT_TIMEOUT_SECONDS + 2.0
# A pool that gives up soon tries again with the next request. One that backs off for minutes
# would stay disconnected long after the database is back.
RECONNECT_SECONDS = 2.0
WAIT_SECONDS = 2.0
MAX_WAITING = 1_000

# SQLSTATE classes of failures that the request did not cause.
LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    TooManyRequests,
)


def conninfo(
    url: str,
    *,
    role: str | None = SERVICE_ROLE,
    search_path: str = "public",
    settings: Mapping[str, str] | None = None,
) -> str:
    """The connection string for ``url`` with the service's role, time zone and time-outs."""
    given = conninfo_to_dict(url)
    options = [
        str(given.get("options") or ""),
        f"-c search_path={search_path}",
        "-c timezone=UTC",
        f"-c statement_timeout={STATEMENT_TIMEOUT_SECONDS * 1000}",
        f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000}",
    ]
    options += [f"-c {name}={value}" for name, value in (settings or {}).items()]
    if role is not None:
        options.append(f"-c role={role}")
    return make_conninfo(
        url,
        options=" ".join(filter(None, options)),
        application_name="holdfast",
        connect_timeout=3,
    )


def login_of(url: str) -> str | None:
    """The user that a URL names."""
    return str(conninfo_to_dict(url).get("user") or "") or None


# Connections that may be waiting for an answer, and whether all waiting has to end.
_open: WeakSet[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = WeakSet()
_is_over = threading.Event()


def let_go() -> None:
    """Break this process's connections, and all that are made later, because it is about to end.

    A thread that waits for a server that does not answer would otherwise delay the end.
    """
    _is_over.set()
    for connection in list(_open):
        _hang_up(connection)


def _note(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    _open.add(connection)
    if _is_over.is_set():
        _hang_up(connection)


def _hang_up(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Shut the socket down beneath libpq; its thread sees this as if the server had hung up."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)


class Unanswered(psycopg.errors.QueryCanceled):
    """The server did not answer even after the statement's time-out: frozen or unreachable.

    The connection is closed. It is unknown whether the statement was carried out.
    """


class Connection(psycopg.Connection[TupleRow]):
    """A connection that stops waiting a little after the server's statement time-out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _note(self)

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As :meth:`psycopg.Connection.wait`. Raises :class:`Unanswered`."""
        try:
            return super().wait(gen, interval, timeout or ANSWER_SECONDS)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise
            self.close()
            raise Unanswered("the database server does not answer") from None


class AsyncConnection(psycopg.AsyncConnection[TupleRow]):
    """The asynchronous form of :class:`Connection`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _note(self)

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As :meth:`psycopg.AsyncConnection.wait`. Raises :class:`Unanswered`."""
        try:
            return await super().wait(gen, interval, timeout or ANSWER_SECONDS)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise
            await self.close()
            raise Unanswered("the database server does not answer") from None


def configure(connection: psycopg.Connection | psycopg.AsyncConnection) -> None:
    """Have psycopg parse JSON with orjson."""
    set_json_loads(orjson.loads, connection)


def pool(info: str, size: int, *, checked: bool = False) -> ConnectionPool:
    """A pool for threads, with connections in autocommit mode.

    With ``checked`` a connection is tested before each use, which costs a round trip: for users
    that are idle for long and do not retry.
    """
    return ConnectionPool(
        info,
        min_size=0,
        max_size=size,
        connection_class=Connection,
        kwargs={"autocommit": True},
        configure=configure,
        check=ConnectionPool.check_connection if checked else None,
        timeout=WAIT_SECONDS,
        reconnect_timeout=RECONNECT_SECONDS,
        max_waiting=MAX_WAITING,
        open=True,
    )


def has_broken(error: psycopg.OperationalError) -> bool:
    """Whether the connection failed, so that a retry on a new one may succeed."""
    if _is_over.is_set():
        return False
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests | Unanswered):
        return False
    # Without a code, with one of the classes "connection exception" or "operator intervention".
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn a psycopg error into :class:`Unavailable` or :class:`TimedOut`."""
    try:
        yield
    except psycopg.errors.QueryCanceled as e:
        raise TimedOut("The database took too long to answer.") from e
    except psycopg.errors.DiskFull as e:
        raise Unavailable("The database's disk is full. Try again once there is room.") from e
    except psycopg.errors.ReadOnlySqlTransaction as e:
        # A standby, or a server set to read-only, perhaps because its disk is nearly full.
        raise Unavailable("The database can only be read at the moment. Try again later.") from e
    except LOST as e:
        raise Unavailable(outage.message()) from e
