"""The base of every read model: one table, folded from batches of events in a few statements.

A fold loads the rows that a batch touches, lets a handler change each one event by event, and
writes back what changed: three statements a batch, however many events. A hundred heartbeats of
one session are one row written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, LiteralString, NamedTuple

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from application.eventstore import sql
from application.eventstore.mapper import Recorded

Row = dict[str, Any]
# From a row (None: there is none) and an event to the row as it is then (None: there is none).
Fold = Callable[[Row | None, Recorded], Row | None]
Patch = Callable[[Recorded], Row]


class Failure(NamedTuple):
    """An event that a read model could not fold, and why."""

    event: Recorded
    read_model: str
    error: str


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
    ) -> list[Failure]:
        """Fold a batch within the caller's transaction; the events that could not be folded."""
        return []


class Table(ReadModel):
    """A table whose rows have a key within their namespace, and a handler for each event type.

    The table bears the read model's name.
    """

    # The streams whose events are folded: holders of two kinds have events of the same name.
    category: ClassVar[str]
    key: ClassVar[str]
    # In the order of the table.
    columns: ClassVar[Sequence[str]]
    folds: Mapping[str, Fold]
    # Events that, when they have no payload, change the same few columns whatever the row: the
    # last of them alone is written, without loading the row.
    patches: Mapping[str, Patch]
    patch_columns: ClassVar[Sequence[str]] = ()
    # Of which rows (``t``) this is true; the others go the long way.
    patch_condition: ClassVar[LiteralString] = "true"

    def keys(self, event: Recorded) -> Iterable[str]:
        """Which rows an event concerns; by default the one that its stream is named after."""
        return (event.stream_id.partition("-")[2],)

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> list[Failure]:
        """Patch the rows that need no more; load, change and write back the others."""
        failures: list[Failure] = []
        touched, patched = self._sort(events, failures)
        if patched:
            self._patch_rows(connection, namespace, touched, patched)
        if touched:
            before = self._load(connection, namespace, list(touched))
            changed: list[Row] = []
            gone: list[str] = []
            for key, its_events in touched.items():
                row = self._folded(before.get(key), its_events, failures)
                if row is not None:
                    row["namespace"] = namespace
                    row[self.key] = key
                    changed.append(row)
                elif key in before:
                    gone.append(key)
            if changed:
                connection.execute(self._upsert, [_json(changed)], prepare=True)
            if gone:
                connection.execute(self._delete, [namespace, gone])
        return failures

    def _sort(
        self, events: Sequence[Recorded], failures: list[Failure]
    ) -> tuple[dict[str, list[Recorded]], dict[str, list[Recorded]]]:
        """The events by row: of rows that have to be loaded, and of those that patches suffice."""
        streams = f"{self.category}-"
        touched: dict[str, list[Recorded]] = {}
        patched: dict[str, list[Recorded]] = {}
        for event in events:
            if event.event_type not in self.folds or not event.stream_id.startswith(streams):
                continue
            try:
                keys = tuple(self.keys(event))
            except Exception as e:
                failures.append(Failure(event, self.name, repr(e)))
                continue
            for key in keys:
                if key in touched:
                    touched[key].append(event)
                elif event.event_type in self.patches and not event.event_data:
                    patched.setdefault(key, []).append(event)
                else:
                    touched[key] = [*patched.pop(key, ()), event]
        return touched, patched

    def _patch_rows(
        self,
        connection: psycopg.Connection,
        namespace: str,
        touched: dict[str, list[Recorded]],
        patched: dict[str, list[Recorded]],
    ) -> None:
        """Write the last patch of each row; a row that is not there goes the long way."""
        patches = []
        for key, its_events in patched.items():
            last = its_events[-1]
            patches.append({self.key: key, **self.patches[last.event_type](last)})
        hit = connection.execute(self._patch, [_json(patches), namespace], prepare=True).fetchall()
        if len(hit) < len(patched):
            there = {row[0] for row in hit}
            touched.update({key: e for key, e in patched.items() if key not in there})

    def _folded(
        self, row: Row | None, events: Sequence[Recorded], failures: list[Failure]
    ) -> Row | None:
        """The row after these events. One that fails leaves it as it was, and is reported."""
        for event in events:
            try:
                row = self.folds[event.event_type](None if row is None else dict(row), event)
            except Exception as e:
                failures.append(Failure(event, self.name, repr(e)))
        return row

    def _load(
        self, connection: psycopg.Connection, namespace: str, keys: list[str]
    ) -> dict[str, Row]:
        cursor = connection.cursor(row_factory=dict_row, binary=True)
        rows = cursor.execute(self._select, [namespace, keys], prepare=True).fetchall()
        return {row[self.key]: row for row in rows}

    def __init__(self) -> None:
        self.patches = {}
        table, key = Identifier(self.name), Identifier(self.key)
        columns = SQL(", ").join(map(Identifier, self.columns))
        excluded = SQL(", ").join(SQL("excluded.{}").format(Identifier(c)) for c in self.columns)
        self._select = _compiled(
            SQL("SELECT {columns} FROM {table} WHERE namespace = %s AND {key} = ANY (%s)").format(
                columns=columns, table=table, key=key
            )
        )
        self._upsert = _compiled(
            SQL(
                "INSERT INTO {table} ({columns})"
                " SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s::json)"
                " ON CONFLICT (namespace, {key}) DO UPDATE SET ({columns}) = ROW ({excluded})"
            ).format(table=table, columns=columns, key=key, excluded=excluded)
        )
        patched = SQL(", ").join(map(Identifier, self.patch_columns))
        new = SQL(", ").join(SQL("p.{}").format(Identifier(c)) for c in self.patch_columns)
        self._patch = _compiled(
            SQL(
                "UPDATE {table} AS t SET ({columns}) = ROW ({new})"
                " FROM json_populate_recordset(NULL::{table}, %s::json) AS p"
                " WHERE t.namespace = %s AND t.{key} = p.{key} AND ({condition}) RETURNING t.{key}"
            ).format(
                table=table,
                columns=patched,
                key=key,
                new=new,
                condition=SQL(self.patch_condition),
            )
        )
        self._delete = _compiled(
            SQL("DELETE FROM {table} WHERE namespace = %s AND {key} = ANY (%s)").format(
                table=table, key=key
            )
        )


def there(row: Row | None) -> Row:
    """The row, which must be there: its stream began with the event that made it."""
    if row is None:
        raise LookupError("the row is not there")
    return row


def _compiled(statement: Composed) -> bytes:
    """The statement's text, put together once and not at each use."""
    return statement.as_bytes()


def _json(rows: Sequence[Row]) -> str:
    return orjson.dumps(rows).decode()
