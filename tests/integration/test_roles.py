"""Field cases 30: who may do what in the database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from application.eventstore import connect
from application.eventstore.connect import SERVICE_ROLE
from application.eventstore.migrate import MigrationError, migrate, who_logs_in
from application.eventstore.store import EventStore
from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import schema
from tests.integration.test_event_store import row
from tests.support.killable import KillablePostgres
from tests.support.postgres import as_owner, ask, ask_one

PASSWORD = uuid.uuid4().hex


@pytest.fixture
def empty(cluster: EmbeddedPostgres) -> Iterator[str]:
    """The superuser's URL of a database that nothing has been done to."""
    database = f"t_{uuid.uuid4().hex}"
    with as_owner(cluster.url_of("postgres")) as admin:
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))
        yield cluster.url_of(database)
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database)))


@pytest.fixture
def login(cluster: EmbeddedPostgres) -> Iterator[str]:
    """A role that can log in, with no right but that."""
    role = f"r_{uuid.uuid4().hex}"
    with as_owner(cluster.url_of("postgres")) as admin:
        create(admin, role)
        yield role
        with suppress(psycopg.errors.DependentObjectsStillExist):
            admin.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
            admin.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def create(admin: psycopg.Connection, role: str, options: LiteralString = "") -> None:
    statement = SQL("CREATE ROLE {} LOGIN PASSWORD {} " + options)
    admin.execute(statement.format(Identifier(role), Literal(PASSWORD)))


def as_login(url: str, role: str) -> str:
    """The URL of another role."""
    return make_conninfo(url, user=role, password=PASSWORD)


def test_strangers_may_not_connect(empty: str, login: str) -> None:
    psycopg.connect(as_login(empty, login)).close()

    migrate(empty)

    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(as_login(empty, login))


def test_whoever_is_let_in_by_name_makes_no_tables(empty: str, login: str) -> None:
    migrate(empty)
    grant = SQL("GRANT CONNECT ON DATABASE {} TO {}")
    with as_owner(empty) as owner:
        owner.execute(grant.format(Identifier(owner.info.dbname), Identifier(login)))
    migrate(empty)

    with psycopg.connect(as_login(empty, login), autocommit=True) as connection:
        statements: tuple[LiteralString, ...] = (
            "CREATE TEMP TABLE t (i int)",
            "CREATE TABLE public.t (i int)",
            "SELECT * FROM event_store",
            "SELECT append('default', null, null, null)",
            "SELECT keep_snapshots('default', '[]')",
            "SELECT forget_receipts('default')",
            "SELECT hold_log('default')",
            "SELECT stream_version('default', 'a')",
        )
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_logins_of_the_service_stay_let_in(empty: str, login: str) -> None:
    """One that is a member already, and inherits nothing, loses nothing by the closing."""
    with as_owner(empty) as owner:
        owner.execute(SQL("ALTER ROLE {} NOINHERIT").format(Identifier(login)))
        with suppress(psycopg.errors.DuplicateObject):
            owner.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(SERVICE_ROLE)))
        owner.execute(SQL("GRANT {} TO {}").format(Identifier(SERVICE_ROLE), Identifier(login)))
    migrate(empty)
    schema.install(empty)

    assert who_logs_in(as_login(empty, login)) == (login, False)


def test_a_login_with_no_right_at_all_is_let_act_for_the_service(empty: str, login: str) -> None:
    migrate(empty, login)
    schema.install(empty)

    url = as_login(empty, login)
    store = EventStore.at(url)
    assert store.append("default", [row("a", 1)]).head == 1
    store.close()
    statements: tuple[LiteralString, ...] = (
        "UPDATE event_store SET event_type = 'forged'",
        "DELETE FROM event_store",
        "TRUNCATE event_store",
        "INSERT INTO snapshots VALUES ('default', 'a', 1, 1, '{}')",
        "DELETE FROM receipts",
        "UPDATE log_head SET position = 7",
        "DELETE FROM job_runs",
        "SET session_replication_role = 'replica'",
        "SET ROLE holdfast_owner",
        "CREATE TEMP TABLE t (i int)",
        "CREATE TABLE public.t (i int)",
        "COPY event_store TO PROGRAM 'cat'",
        "COPY (SELECT 1) TO '/tmp/holdfast-forbidden'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "ALTER TABLE event_store DISABLE TRIGGER ALL",
        "DROP SCHEMA projections CASCADE",
        "UPDATE projections.definitions SET is_built = true",
        "CREATE SCHEMA mine",
        "UPDATE schema_migrations SET checksum = 'x'",
    )
    for before in ("SELECT 1", "RESET ROLE"):
        with psycopg.connect(connect.conninfo(url), autocommit=True) as connection:
            connection.execute(before)
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_an_owner_who_may_only_make_roles_can_migrate_and_serve(
    private_cluster: KillablePostgres,
) -> None:
    """On a server where nobody has made the role: whoever makes it may not act under it by that."""
    with as_owner(private_cluster.url_of("postgres")) as admin:
        admin.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(SERVICE_ROLE)))
        create(admin, "landlord", "CREATEROLE")
        create(admin, "app")
        admin.execute("CREATE DATABASE house OWNER landlord")
    owner = as_login(private_cluster.url_of("house"), "landlord")

    migrate(owner, "app")
    schema.install(owner)

    # Without a login of the service's own, the owner is the one to serve.
    migrate(owner)
    for role in ("landlord", "app"):
        store = EventStore.at(as_login(owner, role))
        assert store.append("default", [row(role, 1)]).head > 0
        store.close()
        assert who_logs_in(as_login(owner, role)) == (role, False)


def test_an_owner_who_may_not_make_it_work_is_told_what_to_run(
    cluster: EmbeddedPostgres, login: str, template: str
) -> None:
    name = f"t_{uuid.uuid4().hex}"
    with as_owner(cluster.url_of("postgres")) as admin:
        make = SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(login))
        admin.execute(make)
        try:
            with pytest.raises(MigrationError, match=f'GRANT "{SERVICE_ROLE}" TO "{login}"'):
                migrate(as_login(cluster.url_of(name), login))
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def test_an_owner_who_may_not_make_the_role_is_told_what_to_run(
    private_cluster: KillablePostgres,
) -> None:
    with as_owner(private_cluster.url_of("postgres")) as admin:
        admin.execute(SQL("DROP ROLE {}").format(Identifier(SERVICE_ROLE)))
        create(admin, "plain")
        admin.execute("CREATE DATABASE plain OWNER plain")
        told = f'CREATE ROLE {SERVICE_ROLE} NOLOGIN; GRANT "{SERVICE_ROLE}" TO "plain"'
        with pytest.raises(MigrationError, match=told) as refused:
            migrate(as_login(private_cluster.url_of("plain"), "plain"))
        for statement in str(refused.value).partition("run: ")[2].split(";"):
            admin.execute(statement.encode())
        assert migrate(as_login(private_cluster.url_of("plain"), "plain"))
        # Or else the next start of this cluster would have to make it.
        admin.execute("DROP DATABASE plain")


def test_an_owner_need_not_serve_where_a_login_does(cluster: EmbeddedPostgres, login: str) -> None:
    """Given an administrator who made the role and lent it to the login, and to nobody else."""
    owner = f"r_{uuid.uuid4().hex}"
    with as_owner(cluster.url_of("postgres")) as admin:
        create(admin, owner)
        with suppress(psycopg.errors.DuplicateObject):
            admin.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(SERVICE_ROLE)))
        admin.execute(SQL("GRANT {} TO {}").format(Identifier(SERVICE_ROLE), Identifier(login)))
        admin.execute(SQL("CREATE DATABASE {0} OWNER {0}").format(Identifier(owner)))
        url = as_login(cluster.url_of(owner), owner)
        try:
            migrate(url, login)
            schema.install(url)
            assert who_logs_in(as_login(url, login)) == (login, False)
            with pytest.raises(psycopg.OperationalError, match="permission denied to set role"):
                who_logs_in(url)
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(owner)))
            admin.execute(SQL("DROP ROLE {}").format(Identifier(owner)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_store SET event_type = 'forged'",
        "DELETE FROM event_store",
        "TRUNCATE event_store",
        "INSERT INTO event_store VALUES (9, 9, now(), gen_random_uuid(), 'default', 'a', 't',"
        " '{}', '{}')",
    ],
)
def test_the_triggers_hold_for_a_replica_s_sessions_too(
    database: str, statement: LiteralString
) -> None:
    store = EventStore.at(database)
    store.append("default", [row("a", 1)])
    store.close()

    with as_owner(database) as owner:
        owner.execute("SET session_replication_role = 'replica'")
        with pytest.raises(psycopg.Error, match=r"append-only|does not follow the last one"):
            owner.execute(statement)


def test_a_snapshot_belongs_to_an_event_that_is_there(database: str) -> None:
    store = EventStore.at(database)
    store.append("default", [row("a", 1)])
    kept = [
        {"stream_id": s, "sequence_num": n, "state_version": 1, "state": {}}
        for s, n in (("a", 1), ("a", 2), ("a", 0), ("b", 1))
    ]
    store.insert_snapshots("default", kept)
    store.insert_snapshots("other", kept)
    store.close()

    found = ask(database, "SELECT namespace, stream_id, sequence_num FROM snapshots")
    assert found == [("default", "a", 1)]


def test_functions_are_not_everybody_s(database: str) -> None:
    everybody_s = ask(
        database,
        "SELECT p.proname FROM pg_proc p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " WHERE p.pronamespace = 'public'::regnamespace AND a.grantee = 0"
        " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')",
    )
    # The analysts' views call these, as whoever asks them: they only read.
    assert {name for (name,) in everybody_s} <= {"serving_since", "absent_since"}


def test_what_acts_with_the_owner_s_rights_looks_nowhere_else(database: str) -> None:
    """A function with the owner's rights and a search path of the caller's could be led astray."""
    led = ask(
        database,
        "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
        " AND NOT coalesce(proconfig @> ARRAY['search_path=public, pg_temp'], false)",
    )
    assert led == []


def test_the_service_s_rights_are_these_and_no_others(database: str) -> None:
    rights = ask(
        database,
        "SELECT table_name::text, string_agg(privilege_type, ' ' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants"
        " WHERE grantee = %s AND table_schema = 'public' AND table_name NOT LIKE %s"
        " AND table_name IN (SELECT relname FROM pg_class WHERE relkind = 'r')"
        " GROUP BY 1 ORDER BY 1",
        SERVICE_ROLE,
        "v_%",
    )
    ours = {"event_store", "job_runs", "log_head", "receipts", "service_thresholds", "snapshots"}
    assert {table: right for table, right in rights if table in ours} == {
        "event_store": "SELECT",
        "job_runs": "INSERT SELECT UPDATE",
        "log_head": "SELECT",
        "receipts": "SELECT",
        "service_thresholds": "INSERT UPDATE",
        "snapshots": "SELECT",
    }
    assert not any("TRUNCATE" in right or "REFERENCES" in right for _, right in rights)


def test_doors_that_were_opened_again_are_closed_again(database: str) -> None:
    may = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
    migrate(database)
    assert ask_one(database, may) is False
    with as_owner(database) as owner:
        name = Identifier(owner.info.dbname)
        owner.execute(SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(name))
        owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert ask_one(database, may) is True
    migrate(database)
    assert ask_one(database, may) is False
    assert not ask_one(database, "SELECT has_schema_privilege('public', 'public', 'CREATE')")
