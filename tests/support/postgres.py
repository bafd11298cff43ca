"""Looking at, and getting in the way of, a database from outside the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from projections import DEFINITIONS
from projections.kernel.definition import search_path
from tests.support.waiting import eventually

Connection = psycopg.Connection[tuple[Any, ...]]


def as_owner(url: str) -> Connection:
    """A connection of the database's owner, unknown to the service, that finds read models."""
    # What is made without naming a schema goes into the first one.
    options = f"-c search_path=public,{search_path(each.place for each in DEFINITIONS)}"
    info = make_conninfo(url, application_name="test", options=options)
    return psycopg.connect(info, autocommit=True)


def ask(url: str, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of one query."""
    with as_owner(url) as connection:
        return connection.execute(query, parameters).fetchall()


def ask_one(url: str, query: LiteralString, *parameters: object) -> Any:
    """The only value of one query."""
    [(value,)] = ask(url, query, *parameters)
    return value


def change(url: str, statement: LiteralString, *parameters: object) -> int:
    """Carry out a statement as the owner; how many rows it concerned."""
    with as_owner(url) as connection:
        return connection.execute(statement, parameters).rowcount


def blocked(url: str) -> int:
    """How many of the service's connections wait for a lock."""
    return int(
        ask_one(
            url,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'holdfast' AND wait_event_type = 'Lock'",
        )
    )


@contextmanager
def log_held(url: str, namespace: str = "default") -> Iterator[None]:
    """Nobody appends to the namespace for the length of the block: appends wait."""
    with as_owner(url) as connection, connection.transaction():
        connection.execute("SELECT hold_log(%s)", [namespace])
        yield


def wait_until_blocked(url: str, number: int = 1) -> None:
    """Return once this many of the service's connections wait for a lock."""
    eventually(lambda: blocked(url) >= number, f"waiting of {number} connections")


def terminate_listeners(url: str) -> int:
    """End every connection that listens; how many there were."""
    return len(
        ask(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE %s AND pid <> pg_backend_pid()",
            "LISTEN%",
        )
    )


def streams(url: str, namespace: str = "default") -> dict[str, list[int]]:
    """Each stream's sequence numbers in the order of the log."""
    rows = ask(
        url,
        "SELECT stream_id, array_agg(sequence_num ORDER BY position) FROM event_store"
        " WHERE namespace = %s GROUP BY stream_id",
        namespace,
    )
    return dict(rows)


def assert_contiguous(url: str, namespace: str = "default") -> None:
    """Every stream counts from 1 without gaps in the log's order, and so does the log."""
    for stream_id, numbers in streams(url, namespace).items():
        assert numbers == list(range(1, len(numbers) + 1)), stream_id
    positions = [
        position
        for (position,) in ask(
            url,
            "SELECT position FROM event_store WHERE namespace = %s ORDER BY position",
            namespace,
        )
    ]
    assert positions == list(range(1, len(positions) + 1))
