"""Applies missing migrations, each once, however many processes start at the same time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import sql

from application.eventstore import connect
from application.eventstore import sql as sql_files
from application.eventstore.connect import SERVICE_ROLE

# The first line of a breaking migration, which removes something that the version before needs.
# All others only add: the version before goes on with them, and can be started again.
BREAKING = "-- Versions from before cannot serve after this.\n"

# Any number will do, so long as every process uses the same one.
LOCK = 0x686F6C6466617374  # "holdfast"

_SQL = sql_files.load("application.eventstore", "roles.sql")

log = logging.getLogger("holdfast.migrate")


class Migration(NamedTuple):
    """A numbered SQL file. It must never change once it was applied anywhere."""

    name: str
    ddl: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.ddl.encode()).hexdigest()

    @property
    def is_breaking(self) -> bool:
        """Whether a version that does not know this migration must not serve."""
        return self.ddl.startswith(BREAKING)


class MigrationError(Exception):
    """This version cannot serve with the database's schema."""


def migrations() -> list[Migration]:
    """All migrations in order."""
    folder = files("application.eventstore").joinpath("migrations")
    found = [f for f in folder.iterdir() if f.name.endswith(".sql")]
    return [
        Migration(f.name.removesuffix(".sql"), f.read_text(encoding="utf-8"))
        for f in sorted(found, key=lambda f: f.name)
    ]


def migrate(owner_url: str, login: str | None = None) -> list[str]:
    """Apply missing migrations, each in its own transaction; return their names.

    ``url`` must be the owner's. The service's ``login``, if it is a different one, is granted the
    service's role, if the owner may do that. Everybody else loses the right to connect.
    Raises :class:`MigrationError` if an applied migration differs from the file of this version,
    if a later version applied a breaking one, or if nobody could use the service's role.
    """
    applied = []
    with psycopg.connect(owner_url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        connection.execute(
            "ALTER TABLE schema_migrations"
            " ADD COLUMN IF NOT EXISTS is_breaking boolean NOT NULL DEFAULT false"
        )
        found = connection.execute("SELECT name, checksum, is_breaking FROM schema_migrations")
        todo = migrations()
        done = _checked(found.fetchall(), todo)
        for migration in todo:
            if migration.name in done:
                continue
            with _role_is_there(connection), connection.transaction():
                connection.execute(migration.ddl.encode())
                connection.execute(
                    "INSERT INTO schema_migrations (name, checksum, is_breaking)"
                    " VALUES (%s, %s, %s)",
                    [migration.name, migration.checksum, migration.is_breaking],
                )
            applied.append(migration.name)
        _let_act(connection, login)
        _close_doors(connection)
    return applied


def who_logs_in(url: str) -> tuple[str, bool]:
    """The login of ``url``, not the role that it takes, and whether it is a superuser.

    Raises ``psycopg.OperationalError`` if it cannot connect or cannot take the service's role.
    """
    with psycopg.connect(connect.conninfo(url)) as connection:
        row = connection.execute(_SQL["login"]).fetchone()
    assert row is not None
    return row[0], row[1]


@contextmanager
def _role_is_there(connection: psycopg.Connection) -> Iterator[None]:
    """If the owner may not create the service's role, raise with the SQL for an administrator."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as e:
        if "create role" not in str(e):
            raise
        raise MigrationError(
            f"{connection.info.user} may not make the role {SERVICE_ROLE} that the service works"
            f" under; let an administrator run: CREATE ROLE {SERVICE_ROLE} NOLOGIN;"
            f" {_grant(connection, connection.info.user).as_string(connection)}"
        ) from None


def _grant(connection: psycopg.Connection, who: str) -> sql.Composed:
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(SERVICE_ROLE), sql.Identifier(who))
    return grant + sql.SQL(" WITH SET TRUE" if connection.info.server_version >= 160_000 else "")


def _checked(found: list[tuple[str, str, bool]], todo: list[Migration]) -> set[str]:
    """The names of the applied migrations. Raises if this version cannot serve with them."""
    ours = {m.name: m.checksum for m in todo}
    for name, checksum, is_breaking in found:
        if name not in ours and is_breaking:
            raise MigrationError(f"the database has migration {name}, which this version lacks")
        if name not in ours:
            log.warning("database_is_of_a_later_version", extra={"migration": name})
        elif ours[name] != checksum:
            raise MigrationError(f"migration {name} is not the one that was applied")
    return {name for name, _, _ in found}


def _let_act(connection: psycopg.Connection, login: str | None) -> None:
    """Grant the service's role to the service's login, which may be the owner."""
    found = connection.execute(_SQL["may_act"], {"role": SERVICE_ROLE, "login": login}).fetchone()
    if found is None or found[0]:
        return  # a login that is not there fails to connect, and is told then
    who = login or connection.info.user
    grant = _grant(connection, who)
    try:
        connection.execute(grant)
    except psycopg.errors.InsufficientPrivilege:
        raise MigrationError(
            f"{who} may not act under the role {SERVICE_ROLE}, which someone else made; let an"
            f" administrator run: {grant.as_string(connection)}"
        ) from None


def _close_doors(connection: psycopg.Connection) -> None:
    """Revoke what Postgres grants to everybody by default: connect, create temporary tables."""
    row = connection.execute(_SQL["doors"], {"role": SERVICE_ROLE}).fetchone()
    assert row is not None
    is_owner, is_open, is_public_writable, admitted = row
    if not (is_open or is_public_writable):
        return
    if not is_owner:
        log.warning("database_is_open_to_everybody")
        return
    database = sql.Identifier(connection.info.dbname)
    with connection.transaction():
        for name in admitted:
            connection.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(name))
            )
        connection.execute(
            sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(database)
        )
        if is_public_writable:
            connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
