"""Field cases 30: who gets into the embedded Postgres."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from application.eventstore import connect
from application.eventstore.connect import SERVICE_ROLE
from application.eventstore.migrate import migrate, who_logs_in
from application.eventstore.store import EventStore
from interfaces.host.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from projections import schema
from tests.integration.test_event_store import row
from tests.support.killable import KillablePostgres
from tests.support.postgres import as_owner, ask, ask_one

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as someone else")

# As initdb wrote it for the version before this one.
TRUSTING = "local all all trust\nhost all all 127.0.0.1/32 trust\nlocal replication all trust\n"


def without_password(url: str, **changes: str) -> str:
    """The URL with no password file to find one in."""
    parts = {k: v for k, v in conninfo_to_dict(url).items() if k != "passfile"}
    return make_conninfo("", **{**parts, "passfile": "/dev/null", **changes})


def cluster_of(postgres: EmbeddedPostgres) -> Path:
    return postgres.log_path.parent / "data"


def make_it_of_the_version_before(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    """Take back, in a running cluster, all that this version has done to it."""
    with as_owner(postgres.url) as owner:
        owner.execute("CREATE TABLE memory AS SELECT 'kept' AS word")
        owner.execute(f"ALTER ROLE {SERVICE_ROLE} NOLOGIN PASSWORD NULL")
        owner.execute("ALTER ROLE holdfast_owner PASSWORD NULL")
        (cluster_of(postgres) / "pg_hba.conf").write_text(TRUSTING)
        owner.execute("SELECT pg_reload_conf()")
    (data_dir / "pg.passwords").unlink()
    psycopg.connect(without_password(postgres.url)).close()


def assert_closed(postgres: EmbeddedPostgres) -> None:
    methods = ask(postgres.url, "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules")
    assert methods == [("local", "scram-sha-256")]
    for url in (postgres.url, postgres.service_url):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(without_password(url))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(without_password(url, password="guessed"))
        psycopg.connect(url).close()


def test_nobody_gets_in_without_a_password(private_cluster: KillablePostgres) -> None:
    assert_closed(private_cluster)
    for role in ("postgres", "root", "nobody"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(without_password(private_cluster.url, user=role, password="x"))


def test_the_passwords_are_kept_closed_and_stand_in_no_url(
    private_cluster: KillablePostgres, data_dir: Path
) -> None:
    kept = data_dir / "pg.passwords"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    drawn = [line.rpartition(":")[2] for line in kept.read_text().split()]
    assert len(set(drawn)) == 2
    for password in drawn:
        assert len(password) == 64
        assert password not in private_cluster.url + private_cluster.service_url
        assert password not in private_cluster.log_path.read_text()
    stored = (
        "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$1:%') FROM pg_authid WHERE rolcanlogin"
    )
    with as_owner(private_cluster.url) as owner:
        assert owner.execute(stored.encode()).fetchone() == (True,)


def psql(postgres: EmbeddedPostgres, uid: int, gid: int) -> subprocess.CompletedProcess[str]:
    """An attempt of another user's, who knows where the socket is and who the owner is."""
    host = conninfo_to_dict(postgres.url)["host"]
    program = str(postgres._binaries / "psql")
    return subprocess.run(
        [program, "--no-password", "-h", str(host), "-U", "holdfast_owner", "-c", "SELECT 1"],
        user=uid,
        group=gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PGDATABASE": "holdfast"},
        cwd="/",
    )


@as_root
def test_another_user_of_the_machine_does_not_reach_it(private_cluster: KillablePostgres) -> None:
    refused = psql(private_cluster, 12_345, 12_345)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


@as_root
def test_the_account_of_the_server_does_not_get_in_either(
    private_cluster: KillablePostgres,
) -> None:
    """Whoever else runs as that account reaches the socket, and no further."""
    account = private_cluster.log_path.parent.stat()
    refused = psql(private_cluster, account.st_uid, account.st_gid)
    assert refused.returncode != 0
    assert "no password supplied" in refused.stderr


STATEMENTS: tuple[LiteralString, ...] = (
    "UPDATE event_store SET event_type = 'forged'",
    "DELETE FROM event_store",
    "TRUNCATE event_store",
    "INSERT INTO event_store VALUES (2, 1, now(), gen_random_uuid(), 'default', 's', 't',"
    " '{}', '{}')",
    "INSERT INTO snapshots VALUES ('default', 'a', 1, 1, '{}')",
    "INSERT INTO receipts VALUES ('default', 'k', 'h', 200, '{}', 1, now())",
    "DELETE FROM receipts",
    "SET ROLE holdfast_owner",
    "SET SESSION AUTHORIZATION holdfast_owner",
    "SET session_replication_role = 'replica'",
    "COPY event_store TO PROGRAM 'cat'",
    "COPY event_store FROM PROGRAM 'cat'",
    "COPY (SELECT 1) TO '/tmp/holdfast-forbidden'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT * FROM pg_authid",
    "CREATE ROLE more SUPERUSER",
    "ALTER ROLE holdfast_service SUPERUSER",
    "ALTER SYSTEM SET fsync = off",
    "CREATE DATABASE more",
    "CREATE SCHEMA more",
    "CREATE TABLE public.more (i int)",
    "CREATE TEMP TABLE more (i int)",
    "ALTER TABLE event_store DISABLE TRIGGER ALL",
    "DROP TABLE event_store",
    "SELECT pg_reload_conf()",
)


def test_the_service_s_login_gains_nothing_by_resetting_its_role(
    private_cluster: KillablePostgres,
) -> None:
    migrate(private_cluster.url)
    schema.install(private_cluster.url)
    url = private_cluster.service_url
    assert who_logs_in(url) == (SERVICE_ROLE, False)
    store = EventStore.at(url)
    store.append("default", [row("a", 1)])
    store.close()
    for before in ("SELECT 1", "RESET ROLE", "RESET SESSION AUTHORIZATION", "SET ROLE NONE"):
        with psycopg.connect(connect.conninfo(url), autocommit=True) as connection:
            connection.execute(before)
            for statement in STATEMENTS:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    assert ask_one(private_cluster.url, "SELECT count(*) FROM event_store") == 1
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(private_cluster.url_of(database, SERVICE_ROLE))


def test_what_the_service_s_login_changes_of_itself_ends_with_the_next_start(
    private_cluster: KillablePostgres,
) -> None:
    migrate(private_cluster.url)
    with psycopg.connect(private_cluster.service_url, autocommit=True) as login:
        login.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        login.execute(
            "ALTER ROLE CURRENT_USER IN DATABASE holdfast"
            " SET default_transaction_isolation = 'serializable'"
        )
        login.execute("ALTER ROLE CURRENT_USER PASSWORD 'its own'")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(private_cluster.service_url)
    private_cluster.stop()
    private_cluster.start()
    assert ask_one(private_cluster.service_url, "SHOW default_transaction_read_only") == "off"
    assert (
        ask_one(private_cluster.service_url, "SHOW default_transaction_isolation")
        == "read committed"
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without_password(private_cluster.service_url, password="its own"))


@pytest.mark.parametrize("state", ["stopped", "killed", "running"])
def test_a_folder_of_the_version_before_is_closed_at_the_next_start(
    private_cluster: KillablePostgres, data_dir: Path, state: str
) -> None:
    make_it_of_the_version_before(private_cluster, data_dir)
    if state == "stopped":
        private_cluster.stop()
    elif state == "killed":
        private_cluster.kill()

    with EmbeddedPostgres(data_dir) as upgraded:
        assert ask_one(upgraded.url, "SELECT word FROM memory") == "kept"
        assert_closed(upgraded)


def test_a_closing_that_was_cut_short_is_taken_up(
    private_cluster: KillablePostgres, data_dir: Path
) -> None:
    """Given passwords that were drawn, and rules that were not written yet, or the other way."""
    private_cluster.stop()
    (cluster_of(private_cluster) / "pg_hba.conf").write_text(TRUSTING)
    private_cluster.start()
    assert_closed(private_cluster)
    private_cluster.stop()
    kept = data_dir / "pg.passwords"
    for left in ("", "*:*:*:holdfast_owner:1234\n", None):
        if left is None:
            kept.unlink()
        else:
            kept.write_text(left)
        private_cluster.start()
        assert_closed(private_cluster)
        private_cluster.stop()


def test_other_passwords_than_the_cluster_s_are_said(
    private_cluster: KillablePostgres, data_dir: Path
) -> None:
    private_cluster.stop()
    kept = data_dir / "pg.passwords"
    lines = [f"{line[:-1]}{'1' if line[-1] != '1' else '2'}" for line in kept.read_text().split()]
    kept.write_text("\n".join(lines) + "\n")
    with pytest.raises(EmbeddedPostgresError, match=r"other passwords than .* delete that file"):
        private_cluster.start()
    kept.unlink()
    private_cluster.start()
    assert_closed(private_cluster)


@as_root
def test_passwords_of_someone_else_s_making_are_refused(
    private_cluster: KillablePostgres, data_dir: Path
) -> None:
    private_cluster.stop()
    os.chown(data_dir / "pg.passwords", 12_345, -1)
    with pytest.raises(EmbeddedPostgresError, match="belongs to user 12345"):
        private_cluster.start()
    os.chown(data_dir / "pg.passwords", 0, -1)
