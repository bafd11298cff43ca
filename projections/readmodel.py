"""The base of every read model: one table, folded from batches of events in a few statements.

A fold loads the rows that a batch touches, lets a handler change each one event by event, and
writes back what changed: three statements a batch, however many events. A hundred heartbeats of
one session are one row written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from application.eventstore import sql
from application.eventstore.mapper import Recorded

Row = dict[str, Any]
# From a row (None: there is none) and an event to the row as it is then (None: there is none).
Fold = Callable[[Row | None, Recorded], Row | None]


class Failure(Exception):
    """An event that a read model cannot fold."""

    def __init__(self, event: Recorded, read_model: str, error: Exception) -> None:
        super().__init__(f"{read_model}: {error!r}")
        self.event = event
        self.read_model = read_model
        self.error = error


class ReadModel:
    """DDL and queries, in the SQL file that bears its name; block ``create`` is the DDL."""

    name: ClassVar[str]
    # Views that analysts find in the schema ``public``, whichever schema is the live one.
    public_views: ClassVar[Sequence[str]] = ()

    @classmethod
    def sql(cls) -> dict[str, str]:
        """The blocks of the SQL file."""
        return sql.load("projections", f"{cls.name}.sql")

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> None:
        """Fold a batch within the caller's transaction. Raises :class:`Failure`."""


class Table(ReadModel):
    """A table whose rows have a key within their namespace, and a handler for each event type.

    The table bears the read model's name.
    """

    key: ClassVar[str]
    # In the order of the table.
    columns: ClassVar[Sequence[str]]
    folds: Mapping[str, Fold]

    def keys(self, event: Recorded) -> Iterable[str]:
        """Which rows an event concerns; by default the one that its stream is named after."""
        return (event.stream_id.partition("-")[2],)

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> None:
        """Load the rows that the batch touches, change each event by event, write them back."""
        touched: dict[str, list[Recorded]] = {}
        for event in events:
            if event.event_type in self.folds:
                for key in self.keys(event):
                    touched.setdefault(key, []).append(event)
        if not touched:
            return
        before = self._load(connection, namespace, list(touched))
        changed: list[Row] = []
        gone: list[str] = []
        for key, its_events in touched.items():
            row = before.get(key)
            for event in its_events:
                try:
                    row = self.folds[event.event_type](row, event)
                except Exception as e:
                    raise Failure(event, self.name, e) from e
            if row is not None:
                row["namespace"] = namespace
                row[self.key] = key
                changed.append(row)
            elif key in before:
                gone.append(key)
        if changed:
            connection.execute(self._upsert, [orjson.dumps(changed).decode()], prepare=True)
        if gone:
            connection.execute(self._delete, [namespace, gone])

    def _load(
        self, connection: psycopg.Connection, namespace: str, keys: list[str]
    ) -> dict[str, Row]:
        cursor = connection.cursor(row_factory=dict_row, binary=True)
        rows = cursor.execute(self._select, [namespace, keys], prepare=True).fetchall()
        return {row[self.key]: row for row in rows}

    def __init__(self) -> None:
        table, key = Identifier(self.name), Identifier(self.key)
        columns = SQL(", ").join(map(Identifier, self.columns))
        excluded = SQL(", ").join(SQL("excluded.{}").format(Identifier(c)) for c in self.columns)
        self._select: Composed = SQL(
            "SELECT {columns} FROM {table} WHERE namespace = %s AND {key} = ANY (%s)"
        ).format(columns=columns, table=table, key=key)
        self._upsert: Composed = SQL(
            "INSERT INTO {table} ({columns})"
            " SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s::json)"
            " ON CONFLICT (namespace, {key}) DO UPDATE SET ({columns}) = ROW ({excluded})"
        ).format(table=table, columns=columns, key=key, excluded=excluded)
        self._delete: Composed = SQL(
            "DELETE FROM {table} WHERE namespace = %s AND {key} = ANY (%s)"
        ).format(table=table, key=key)


def there(row: Row | None) -> Row:
    """The row, which must be there: its stream began with the event that made it."""
    if row is None:
        raise LookupError("the row is not there")
    return row
