"""Bringing a database's schema up to date, once, however many processes start at the same time."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import sql

from application.eventstore.connect import SERVICE_ROLE

# Any number will do, so long as every process uses the same one.
LOCK = 0x686F6C6466617374  # "holdfast"


class Migration(NamedTuple):
    """A numbered file of DDL. It never changes once it was applied anywhere."""

    name: str
    ddl: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.ddl.encode()).hexdigest()


class MigrationError(Exception):
    """The database's schema is not one that this version can serve."""


def migrations() -> list[Migration]:
    """All migrations in their order."""
    folder = files("application.eventstore").joinpath("migrations")
    found = [f for f in folder.iterdir() if f.name.endswith(".sql")]
    return [
        Migration(f.name.removesuffix(".sql"), f.read_text(encoding="utf-8"))
        for f in sorted(found, key=lambda f: f.name)
    ]


def migrate(owner_url: str) -> list[str]:
    """Apply what is missing, each in a transaction of its own; the names of what was applied.

    Needs the owner of the database. Raises :class:`MigrationError` when an applied migration
    differs from the one that this version has, or is unknown to it.
    """
    applied = []
    with psycopg.connect(owner_url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        done: dict[str, str] = dict(
            connection.execute("SELECT name, checksum FROM schema_migrations").fetchall()
        )
        todo = migrations()
        _require_known(done, todo)
        for migration in todo:
            if migration.name in done:
                continue
            with connection.transaction():
                connection.execute(migration.ddl.encode())
                connection.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)",
                    [migration.name, migration.checksum],
                )
            applied.append(migration.name)
        _join_service_role(connection)
    return applied


def _require_known(done: dict[str, str], todo: list[Migration]) -> None:
    ours = {m.name: m.checksum for m in todo}
    for name, checksum in done.items():
        if name not in ours:
            raise MigrationError(f"the database has migration {name}, which this version lacks")
        if ours[name] != checksum:
            raise MigrationError(f"migration {name} is not the one that was applied")


def _join_service_role(connection: psycopg.Connection) -> None:
    """Let the owner act under the service's role (``SET ROLE``)."""
    member = connection.execute(
        "SELECT pg_has_role(current_user, %s, 'MEMBER')", [SERVICE_ROLE]
    ).fetchone()
    if member != (True,):
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(SERVICE_ROLE)))
