"""The read models' tables: made, and built anew beside the live ones and swapped in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import psycopg
from psycopg.sql import SQL, Identifier

from application.eventstore import connect
from application.eventstore import sql as sql_files
from application.eventstore.connect import SERVICE_ROLE
from application.eventstore.migrate import LOCK
from projections import READ_MODELS
from projections.projector import Folder
from projections.reads import LIVE_SCHEMA

SPARE_SCHEMA = "read_models_next"
CATCHING_UP = 3

# Told with (events folded, events to fold).
Watcher = Callable[[int, int], None]


def ddl() -> str:
    """Every statement that the schema is made of."""
    blocks = [sql_files.load("projections", "schema.sql")["create"]]
    blocks += [model.sql()["create"] for model in READ_MODELS]
    return "\n".join(blocks)


def checksum() -> str:
    """Identifies the definition: read models of another one have to be built anew."""
    return hashlib.sha256(ddl().encode()).hexdigest()


def install(owner_url: str, watch: Watcher | None = None) -> bool:
    """See to it that the live schema is there and of this version's definition.

    A schema of another definition is rebuilt from the log before this returns. Returns whether
    anything was done. Safe when several processes start at once.
    """
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        if _definition(connection) == checksum():
            return False
        _rebuild(owner_url, connection, watch)
    return True


def rebuild(owner_url: str, watch: Watcher | None = None) -> int:
    """Build all read models from event 1 beside the live ones, then swap; how many events.

    The live ones serve meanwhile; the swap waits for the projector's batch at hand and for reads
    that are under way, and no longer.
    """
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        return _rebuild(owner_url, connection, watch)


def _definition(connection: psycopg.Connection) -> str | None:
    table = f"{LIVE_SCHEMA}.definition"
    there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    if there != (True,):
        return None
    row = connection.execute(
        SQL("SELECT checksum FROM {}.definition").format(Identifier(LIVE_SCHEMA))
    ).fetchone()
    return None if row is None else str(row[0])


def _rebuild(owner_url: str, connection: psycopg.Connection, watch: Watcher | None) -> int:
    _create_spare(connection)
    info = connect.conninfo(owner_url, role=None, search_path=f"{SPARE_SCHEMA},public")
    folder = Folder.connect(info, READ_MODELS)
    folded = 0
    try:
        # Each pass takes up what was appended during the one before, which is less and less.
        for _ in range(CATCHING_UP):
            folded = _fold_all(folder, folded, watch)
    finally:
        folder.close()
    with connection.transaction():
        connection.execute(SQL("SET LOCAL search_path = {}, public").format(_spare()))
        if _definition(connection) is not None:
            # Whoever holds a row of it is in the middle of a batch; from here on nobody starts one.
            connection.execute(
                SQL("LOCK TABLE {}.projector_position IN ACCESS EXCLUSIVE MODE").format(_live())
            )
        folded = _fold_all(Folder(connection, READ_MODELS), folded, watch)
        _swap(connection)
    return folded


def _fold_all(folder: Folder, folded: int, watch: Watcher | None) -> int:
    """Fold up to the heads of this moment; the number of events folded so far.

    What is appended meanwhile is left: waiting for a moment without appends might take for ever.
    """
    behind = folder.behind()
    to_do = sum(head - projected for _, projected, head in behind)
    for namespace, projected, head in behind:
        while projected < head:
            position = folder.fold(namespace)
            assert position is not None, "nobody else folds into the spare schema"
            done = position - projected
            projected, folded, to_do = position, folded + done, max(0, to_do - done)
            if watch is not None:
                watch(folded, folded + to_do)
    return folded


def _create_spare(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(_spare()))
        connection.execute(SQL("CREATE SCHEMA {}").format(_spare()))
        connection.execute(SQL("SET LOCAL search_path = {}, public").format(_spare()))
        connection.execute(ddl().encode())
        connection.execute("INSERT INTO definition VALUES (%s)", [checksum()])
        role = Identifier(SERVICE_ROLE)
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(_spare(), role))
        connection.execute(
            SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}").format(
                _spare(), role
            )
        )


def _swap(connection: psycopg.Connection) -> None:
    """Make the spare schema the live one, and point the analysts' views at it."""
    views = [view for model in READ_MODELS for view in model.public_views]
    for view in views:
        connection.execute(SQL("DROP VIEW IF EXISTS public.{}").format(Identifier(view)))
    connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(_live()))
    connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(_spare(), _live()))
    for view in views:
        name = Identifier(view)
        connection.execute(
            SQL("CREATE VIEW public.{} AS SELECT * FROM {}.{}").format(name, _live(), name)
        )
        connection.execute(
            SQL("GRANT SELECT ON public.{} TO {}").format(name, Identifier(SERVICE_ROLE))
        )


def _live() -> Identifier:
    return Identifier(LIVE_SCHEMA)


def _spare() -> Identifier:
    return Identifier(SPARE_SCHEMA)
