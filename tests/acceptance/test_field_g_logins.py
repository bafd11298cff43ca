"""Field cases 30: as whom the service works in its database."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Server, attempt, ok

PASSWORD = f"p@ss/{uuid.uuid4().hex}"


@pytest.fixture
def apart(cluster: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """URLs of two logins: the owner of an empty database, no superuser; and one with no rights."""
    owner, app = (f"r_{uuid.uuid4().hex}" for _ in range(2))
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        for role in (owner, app):
            make = SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}")
            admin.execute(make.format(Identifier(role), Literal(PASSWORD)))
        admin.execute(SQL("ALTER ROLE {} NOCREATEROLE").format(Identifier(app)))
        admin.execute(SQL("CREATE DATABASE {0} OWNER {0}").format(Identifier(owner)))
        # Roles are shared by a server's databases, and another owner made this one before.
        lend = SQL("GRANT holdfast_service TO {} WITH ADMIN TRUE, SET FALSE, INHERIT FALSE")
        admin.execute(
            "DO $$ BEGIN IF to_regrole('holdfast_service') IS NULL THEN"
            " CREATE ROLE holdfast_service; END IF; END $$"
        )
        admin.execute(lend.format(Identifier(owner)))
        try:
            yield (
                make_conninfo(cluster.url_of(owner), user=owner, password=PASSWORD),
                make_conninfo(cluster.url_of(owner), user=app, password=PASSWORD),
            )
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(owner)))
            admin.execute(SQL("REVOKE holdfast_service FROM {} CASCADE").format(Identifier(owner)))
            for role in (app, owner):
                admin.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
                admin.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def logins(admin_url: str) -> set[str]:
    """As whom the service is logged in to a database."""
    query = (
        "SELECT DISTINCT usename::text FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    with psycopg.connect(admin_url) as admin:
        return {role for (role,) in admin.execute(query).fetchall()}


def test_owner_and_service_are_kept_apart(
    cluster: EmbeddedPostgres, apart: tuple[str, str], tmp_path: Path
) -> None:
    """Given both URLs, a login with no right at all serves, and the owner only prepares."""
    owner, app = apart
    settings = {"MIGRATION_DATABASE_URL": owner}
    with Server(app, tmp_path, **settings) as server, server.default() as api:
        api.session()
        assert ok(api.get("/api/sessions"))["total_count"] == 1
        user = str(conninfo_to_dict(app)["user"])
        assert logins(cluster.url_of(str(conninfo_to_dict(app)["dbname"]))) == {user}
        assert server.lines("service_logs_in_as_superuser") == []
        assert PASSWORD not in server.log()


def test_an_owner_who_is_no_superuser_serves(apart: tuple[str, str], tmp_path: Path) -> None:
    """Given the owner's URL alone, who is a member that may not act under the role, it serves."""
    with Server(apart[0], tmp_path) as server, server.default() as api:
        api.session()
        assert server.lines("service_logs_in_as_superuser") == []


def test_a_login_that_cannot_work_is_told_what_to_run(apart: tuple[str, str]) -> None:
    """Given a login that may prepare nothing and was not let in, the start says so."""
    key = str(uuid.uuid4())
    failed = attempt(DATABASE_URL=apart[1], API_KEYS=key)
    assert failed.returncode == 6
    assert "Traceback" not in failed.stderr
    assert PASSWORD not in failed.stderr
    assert key not in failed.stderr


def test_a_superuser_s_url_is_warned_of(database: str, tmp_path: Path) -> None:
    """Given the URL of a superuser, the log has a warning; the work is done under the role."""
    with Server(database, tmp_path) as server, server.default() as api:
        api.session()
        [line] = server.lines("service_logs_in_as_superuser")
        assert line["level"] == "WARNING"
        assert line["context"]["login"] == "holdfast_owner"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_beside_its_own_postgres_the_service_is_nobody_special(
    data_dir: Path, workers: str
) -> None:
    """Given no DATABASE_URL, all that serves is the service's login, and no password shows."""
    with Server(None, data_dir, WORKERS=workers) as server, server.default() as api:
        api.session()
        ok(api.get("/api/sessions"))
        postgres = EmbeddedPostgres(data_dir)
        assert logins(postgres.url) == {"holdfast_service"}
        passwords = [
            line.rpartition(":")[2] for line in (data_dir / "pg.passwords").read_text().split()
        ]
        family = [psutil.Process(server.process.pid)]
        family += family[0].children(recursive=True)
        surroundings = [server.log()]
        for process in family:
            surroundings += [*process.cmdline(), *process.environ().values()]
        for password in passwords:
            assert not any(password in text for text in surroundings)
        assert server.lines("service_logs_in_as_superuser") == []
    assert os.listdir(data_dir / "pg" / "run") == []
