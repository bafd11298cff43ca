"""The read models' tables: made for each definition, built, and built anew beside the live ones.

A definition that no process has had for a day is dropped. What is described here is done by the
database's owner; the service's role only reads and folds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg
from psycopg.sql import SQL, Identifier

from application.eventstore import connect
from application.eventstore import sql as sql_files
from application.eventstore.connect import SERVICE_ROLE
from application.eventstore.migrate import LOCK
from projections import DEFINITIONS
from projections.kernel.definition import Definition, folded, search_path
from projections.kernel.projector import Folder
from projections.kernel.readmodel import Projection

# So long after it was last seen in a process a definition is dropped.
UNUSED_HOURS = 24
CATCHING_UP = 3
# What the schema is called that is built beside the live one of the same definition.
SPARE = "_next"

# Told with (events folded, events to fold).
Watcher = Callable[[int, int], None]

_SQL = sql_files.load("projections", "schema.sql")


def install(
    owner_url: str,
    watch: Watcher | None = None,
    defined: Sequence[Definition] = DEFINITIONS,
) -> bool:
    """See to it that all definitions are there, and that those that must not be late are built.

    What is there of other definitions stays: other versions of the service may be serving from it.
    Returns whether anything was built. Safe when several processes start at once.
    """
    with _owned(owner_url) as connection:
        known: dict[str, bool] = dict(connection.execute(_SQL["known"]).fetchall())
        paths = {each.model.name: each.place for each in defined}
        for each in defined:
            if each.place not in known:
                _create(connection, each, each.place, paths)
        new = [each for each in defined if not known.get(each.place)]
        if new:
            _fold_beside(owner_url, folded(new), paths.values(), watch)
            connection.execute(_SQL["built"], {"places": [each.place for each in new]})
        _drop_unused(connection, defined)
        _show(connection, defined)
    return bool(new)


def rebuild(
    owner_url: str,
    watch: Watcher | None = None,
    only: Collection[str] = (),
    defined: Sequence[Definition] = DEFINITIONS,
) -> int:
    """Build read models from event 1 beside the live ones, then swap; how many events.

    ``only`` names some; those whose views mention them are built with them. The live ones serve
    meanwhile; the swap waits for the projector's batch at hand and for reads that are under way,
    and no longer. Raises ``KeyError`` for a name that no read model has.
    """
    with _owned(owner_url) as connection:
        chosen = _with_dependents(defined, only)
        spare = {each.place: each.place + SPARE for each in chosen}
        paths = {each.model.name: spare.get(each.place, each.place) for each in defined}
        for each in chosen:
            _create(connection, each, spare[each.place], paths)
        all_folded = {**folded(chosen), **folded(chosen, late=True)}
        models = {spare[place]: model for place, model in all_folded.items()}
        count = _fold_beside(owner_url, models, paths.values(), watch)
        with connection.transaction():
            _set_path(connection, paths.values())
            # Whoever holds a row of it is in the middle of a batch; from here on nobody starts one.
            connection.execute("LOCK TABLE projections.positions IN ACCESS EXCLUSIVE MODE")
            count = _fold_all(Folder(connection, models), count, watch)
            _swap(connection, chosen, spare)
        _show(connection, defined)
    return count


def _owned(owner_url: str) -> psycopg.Connection:
    """A connection of the owner, one at a time, to a database with what all versions share."""
    connection = psycopg.connect(owner_url, autocommit=True)
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    if connection.execute(_SQL["is_there"]).fetchone() == (False,):
        with connection.transaction():
            connection.execute(_SQL["create"].encode())
    return connection


def _create(
    connection: psycopg.Connection, each: Definition, place: str, paths: Mapping[str, str]
) -> None:
    """Make an empty read model, in a schema of this name."""
    schema, role = Identifier(place), Identifier(SERVICE_ROLE)
    with connection.transaction():
        _drop(connection, [place])
        connection.execute(SQL("CREATE SCHEMA {}").format(schema))
        _set_path(connection, [place, *(p for p in paths.values() if p != place)])
        connection.execute(each.model.sql()["create"].encode())
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
        connection.execute(
            SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}").format(
                schema, role
            )
        )
        name = each.model.name
        connection.execute(_SQL["define"], {"place": place, "read_model": name, "is_built": False})


def _drop(connection: psycopg.Connection, places: Collection[str]) -> None:
    """Drop these schemas, with whatever is known of them."""
    for place in places:
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(place)))
    connection.execute(_SQL["forget"], {"places": list(places)})


def _set_path(connection: psycopg.Connection, places: Collection[str]) -> None:
    connection.execute("SELECT set_config('search_path', %s, true)", [search_path(places)])


def _fold_beside(
    owner_url: str,
    models: Mapping[str, Projection],
    places: Collection[str],
    watch: Watcher | None,
) -> int:
    """Fold while others write; what is left then is what they wrote during the last pass."""
    count = 0
    if not models:
        return count
    info = connect.conninfo(owner_url, role=None, search_path=search_path(places))
    folder = Folder.connect(info, models, is_patient=True)
    try:
        # Each pass takes up what was appended during the one before, which is less and less.
        for _ in range(CATCHING_UP):
            count = _fold_all(folder, count, watch)
    finally:
        folder.close()
    return count


def _fold_all(folder: Folder, count: int, watch: Watcher | None) -> int:
    """Fold up to the heads of this moment; the number of events folded so far.

    What is appended meanwhile is left: waiting for a moment without appends might take for ever.
    """
    behind = folder.behind()
    to_do = sum(head - projected for _, projected, head in behind)
    for namespace, projected, head in behind:
        while projected < head:
            position = folder.fold(namespace)
            assert position is not None, "a patient folder waits for its turn"
            done = position - projected
            projected, count, to_do = position, count + done, max(0, to_do - done)
            if watch is not None:
                watch(count, count + to_do)
    return count


def _with_dependents(defined: Sequence[Definition], only: Collection[str]) -> list[Definition]:
    """The named models, or all, and those whose views would go with their tables."""
    unknown = set(only) - {each.model.name for each in defined}
    if unknown:
        raise KeyError(*sorted(unknown))
    names = set(only) or {each.model.name for each in defined}
    for each in defined:
        if names.intersection(each.model.needs):
            names.add(each.model.name)
    return [each for each in defined if each.model.name in names]


def _swap(
    connection: psycopg.Connection, chosen: Sequence[Definition], spare: Mapping[str, str]
) -> None:
    """Put what was built beside them in the places of the live ones."""
    for view in _views(chosen):
        connection.execute(SQL("DROP VIEW IF EXISTS public.{}").format(Identifier(view)))
    _drop(connection, [each.place for each in chosen])
    for each in chosen:
        place, name = each.place, each.model.name
        old, new = Identifier(spare[place]), Identifier(place)
        connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(old, new))
        connection.execute(_SQL["define"], {"place": place, "read_model": name, "is_built": True})
        connection.execute(_SQL["succeed"], {"place": place, "spare": spare[place]})
        connection.execute(_SQL["forget"], {"places": [spare[place]]})


def _views(defined: Sequence[Definition]) -> Mapping[str, str]:
    return {view: each.place for each in defined for view in each.model.public_views}


def _show(connection: psycopg.Connection, defined: Sequence[Definition]) -> None:
    """Let the analysts' views show these definitions."""
    with connection.transaction():
        shown: dict[str, str] = dict(connection.execute(_SQL["shown"]).fetchall())
        for view, place in _views(defined).items():
            if shown.get(view) == place:
                continue
            name, role = Identifier(view), Identifier(SERVICE_ROLE)
            connection.execute(SQL("DROP VIEW IF EXISTS public.{}").format(name))
            connection.execute(
                SQL("CREATE VIEW public.{} AS SELECT * FROM {}.{}").format(
                    name, Identifier(place), name
                )
            )
            connection.execute(SQL("GRANT SELECT ON public.{} TO {}").format(name, role))
            connection.execute(_SQL["show"], {"view": view, "place": place})


def _drop_unused(connection: psycopg.Connection, defined: Sequence[Definition]) -> None:
    """Drop what versions have left behind that run nowhere any more."""
    if connection.execute(_SQL["former_is_there"]).fetchone() == (True,):
        connection.execute(_SQL["former"])
    parameters = {"hours": UNUSED_HOURS, "places": [each.place for each in defined]}
    unused = [place for (place,) in connection.execute(_SQL["unused"], parameters).fetchall()]
    if unused:
        with connection.transaction():
            _drop(connection, unused)
