"""What there is afterwards: the ledgers, the log, the read models as they are and built anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from application.eventstore import connect
from application.eventstore.mapper import Recorded
from projections import DEFINITIONS
from projections.kernel.definition import folded, search_path
from projections.kernel.projector import Folder
from projections.schema import rebuild
from tests.crash.ledger import Entry

NAMESPACE = "default"
PLACES = folded(DEFINITIONS)

# A table's rows, each as JSON text, in order.
Tables = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the checks look at."""

    entries: Sequence[Entry]
    events: Sequence[Recorded]
    head: int
    live: Tables = field(default_factory=dict)
    rebuilt: Tables = field(default_factory=dict)
    # What a projector set aside, and processes that ended though nobody had killed them.
    set_aside: Sequence[str] = ()
    surprises: Sequence[str] = ()


def collect(url: str, entries: Sequence[Entry], surprises: Sequence[str]) -> History:
    """Look at a database that no service works on any more, and rebuild its read models."""
    _fold_the_rest(url)
    with psycopg.connect(url, autocommit=True) as connection:
        events = connection.cursor(row_factory=class_row(Recorded)).execute(
            "SELECT position, event_id, stream_id, sequence_num, event_type, timestamp,"
            " event_data, metadata FROM event_store WHERE namespace = %s ORDER BY position",
            [NAMESPACE],
        )
        head = connection.execute(
            "SELECT position FROM log_head WHERE namespace = %s", [NAMESPACE]
        ).fetchone()
        set_aside = _failures(connection)
        live = _tables(connection)
        rebuild(url)
        return History(
            entries=entries,
            events=events.fetchall(),
            head=0 if head is None else head[0],
            live=live,
            rebuilt=_tables(connection),
            set_aside=[*set_aside, *_failures(connection)],
            surprises=surprises,
        )


def _fold_the_rest(url: str) -> None:
    """What a last sweep wrote after the projectors had caught up."""
    info = connect.conninfo(url, search_path=search_path(PLACES))
    folder = Folder.connect(info, PLACES)
    try:
        while behind := folder.behind():
            for namespace, _, _ in behind:
                folder.fold(namespace)
    finally:
        folder.close()


def _failures(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT read_model, position, error FROM projections.dead_letters"
    ).fetchall()
    return [f"{model} could not fold event {position}: {error}" for model, position, error in rows]


def _tables(connection: psycopg.Connection[Any]) -> Tables:
    names = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY (%s) ORDER BY 2",
        [list(PLACES)],
    ).fetchall()
    return {name: _rows(connection, place, name) for place, name in names}


def _rows(connection: psycopg.Connection[Any], place: str, table: str) -> list[str]:
    query = SQL("SELECT to_jsonb(t)::text FROM {}.{} AS t ORDER BY 1")
    found = connection.execute(query.format(Identifier(place), Identifier(table)))
    return [row for (row,) in found]
