"""The base of every read model: one table, folded from batches of events in a few statements.

A fold loads the rows that a batch touches, lets a handler change each one event by event, and
writes back what changed: three statements a batch, however many events. A hundred heartbeats of
one session are one row written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# The values of a row's key, in the order of its columns.
Key = tuple[Any, ...]
Find = Callable[[Key], Row | None]


class Failure(NamedTuple):
    """An event that a read model could not fold, and why."""

    event: Recorded
    read_model: str
    error: str


class ReadModel:
    """DDL and queries, in the SQL file that bears its name; block ``create`` is the DDL."""

    name: ClassVar[str]
    # The folds' own: a fold that makes other rows of the same events has another number.
    version: ClassVar[int] = 1
    # The models whose tables, views or functions its DDL mentions. Its folds know no other's.
    needs: ClassVar[Sequence[str]] = ()
    # Whether nobody minds that its answers come late: then nobody waits until it is built.
    is_late: ClassVar[bool] = False
    # Views that analysts find in the schema ``public``, whichever definition is shown there.
    public_views: ClassVar[Sequence[str]] = ()

    @classmethod
    def sql(cls) -> dict[str, str]:
        """The blocks of the SQL file."""
        return sql.load("projections", f"{cls.name}.sql")


class Projection(ReadModel):
    """A read model that is folded from events into tables of its own."""

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> list[Failure]:
        """Fold a batch within the caller's transaction; the events that could not be folded.

        It reads and writes tables of its own alone: those of another model are of another position,
        and are not there when this one is built by itself.
        """
        raise NotImplementedError


class Table(Projection):
    """A table whose rows have a key within their namespace, and a handler for each event type.

    The table bears the read model's name.
    """

    # The streams whose events are folded: holders of two kinds have events of the same name.
    categories: ClassVar[Sequence[str]]
    # The columns that tell a row from the others of its namespace.
    key: ClassVar[Sequence[str]]
    # In the order of the table.
    columns: ClassVar[Sequence[str]]
    folds: Mapping[str, Fold]
    # Types of events of these streams that change nothing here.
    ignored: ClassVar[frozenset[str]] = frozenset()
    # Types of events after which later events may concern other rows: what came before is written
    # first, so that :meth:`keys` finds it.
    linking: ClassVar[frozenset[str]] = frozenset()
    # Events that, when they have no payload, change the same few columns whatever the row: the
    # last of them alone is written, without loading the row.
    patches: Mapping[str, Patch]
    patch_columns: ClassVar[Sequence[str]] = ()
    # Of which rows (``t``) this is true; the others go the long way.
    patch_condition: ClassVar[LiteralString] = "true"

    def keys(self, event: Recorded, find: Find) -> Iterable[Key]:
        """Which rows an event concerns; by default the one that its stream is named after.

        ``find`` gives a row of this table by its key, as the events before the last one of a
        ``linking`` type have left it.
        """
        return ((event.stream_id.partition("-")[2],),)

    def project(
        self, connection: psycopg.Connection, namespace: str, events: Sequence[Recorded]
    ) -> list[Failure]:
        """Patch the rows that need no more; load, change and write back the others."""
        failures: list[Failure] = []
        for part in self._parts(events):
            self._project(connection, namespace, part, failures)
        return failures

    def _parts(self, events: Sequence[Recorded]) -> Iterator[Sequence[Recorded]]:
        """The events, parted before each one of which the keys may depend on those before."""
        begin = 0
        if self.linking:
            for end in range(1, len(events)):
                if events[end - 1].event_type in self.linking:
                    yield events[begin:end]
                    begin = end
        yield events[begin:]

    def _project(
        self,
        connection: psycopg.Connection,
        namespace: str,
        events: Sequence[Recorded],
        failures: list[Failure],
    ) -> None:
        def find(key: Key) -> Row | None:
            return self._load(connection, namespace, [key]).get(key)

        touched, patched = self._sort(events, find, failures)
        if patched:
            self._patch_rows(connection, namespace, touched, patched)
        if not touched:
            return
        before = self._load(connection, namespace, list(touched))
        changed: list[Row] = []
        gone: list[Key] = []
        for key, its_events in touched.items():
            row = self._folded(before.get(key), its_events, failures)
            if row is not None:
                changed.append(row | self._named(key) | {"namespace": namespace})
            elif key in before:
                gone.append(key)
        if changed:
            connection.execute(self._upsert, [_json(changed)], prepare=True)
        if gone:
            connection.execute(self._delete, [namespace, *self._given(gone)])

    def _sort(
        self, events: Sequence[Recorded], find: Find, failures: list[Failure]
    ) -> tuple[dict[Key, list[Recorded]], dict[Key, list[Recorded]]]:
        """The events by row: of rows that have to be loaded, and of those that patches suffice."""
        touched: dict[Key, list[Recorded]] = {}
        patched: dict[Key, list[Recorded]] = {}
        for event in events:
            if event.event_type not in self.folds or not event.stream_id.startswith(self._streams):
                continue
            try:
                keys = tuple(self.keys(event, find))
            except psycopg.Error:
                raise
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
        touched: dict[Key, list[Recorded]],
        patched: dict[Key, list[Recorded]],
    ) -> None:
        """Write the last patch of each row; a row that is not there goes the long way."""
        patches = []
        for key, its_events in patched.items():
            last = its_events[-1]
            patches.append(self._named(key) | self.patches[last.event_type](last))
        hit = connection.execute(self._patch, [_json(patches), namespace], prepare=True).fetchall()
        if len(hit) < len(patched):
            there = set(hit)
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
        self, connection: psycopg.Connection, namespace: str, keys: Sequence[Key]
    ) -> dict[Key, Row]:
        cursor = connection.cursor(row_factory=dict_row, binary=True)
        given = [namespace, *self._given(keys)]
        rows = cursor.execute(self._select, given, prepare=True).fetchall()
        return {tuple(row[name] for name in self.key): row for row in rows}

    def _named(self, key: Key) -> Row:
        return dict(zip(self.key, key, strict=True))

    def _given(self, keys: Sequence[Key]) -> list[object]:
        """Keys as the statements take them: a list of the only column, or all columns as JSON."""
        if len(self.key) == 1:
            return [[value for (value,) in keys]]
        return [_json([self._named(key) for key in keys])]

    def __init__(self) -> None:
        self.patches = {}
        self._streams = tuple(f"{category}-" for category in self.categories)
        table = Identifier(self.name)
        key = SQL(", ").join(map(Identifier, self.key))
        columns = SQL(", ").join(map(Identifier, self.columns))
        excluded = SQL(", ").join(SQL("excluded.{}").format(Identifier(c)) for c in self.columns)
        is_one = SQL("t.namespace = %s AND ") + (
            SQL("t.{} = ANY (%s)").format(key)
            if len(self.key) == 1
            else SQL(
                "({own}) IN (SELECT {key} FROM json_populate_recordset(NULL::{table}, %s::json))"
            ).format(own=_of("t", self.key), key=key, table=table)
        )
        self._select = _compiled(
            SQL("SELECT {columns} FROM {table} AS t WHERE {is_one}").format(
                columns=columns, table=table, is_one=is_one
            )
        )
        self._upsert = _compiled(
            SQL(
                "INSERT INTO {table} ({columns})"
                " SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s::json)"
                " ON CONFLICT (namespace, {key}) DO UPDATE SET ({columns}) = ROW ({excluded})"
            ).format(table=table, columns=columns, key=key, excluded=excluded)
        )
        self._patch = _compiled(
            SQL(
                "UPDATE {table} AS t SET ({columns}) = ROW ({new})"
                " FROM json_populate_recordset(NULL::{table}, %s::json) AS p"
                " WHERE t.namespace = %s AND ({own}) = ({theirs}) AND ({condition}) RETURNING {own}"
            ).format(
                table=table,
                columns=SQL(", ").join(map(Identifier, self.patch_columns)),
                own=_of("t", self.key),
                theirs=_of("p", self.key),
                new=_of("p", self.patch_columns),
                condition=SQL(self.patch_condition),
            )
        )
        self._delete = _compiled(
            SQL("DELETE FROM {table} AS t WHERE {is_one}").format(table=table, is_one=is_one)
        )


def there(row: Row | None) -> Row:
    """The row, which must be there: its stream began with the event that made it."""
    if row is None:
        raise LookupError("the row is not there")
    return row


def _of(alias: LiteralString, names: Sequence[str]) -> Composed:
    """The columns with the name of their table."""
    return SQL(", ").join(SQL(alias + ".{}").format(Identifier(name)) for name in names)


def _compiled(statement: Composed) -> bytes:
    """The statement's text, put together once and not at each use."""
    return statement.as_bytes()


def _json(rows: Sequence[Row]) -> str:
    return orjson.dumps(rows).decode()
