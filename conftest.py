"""One Postgres cluster a run, a clean database a test.

The run's folder is made by the process that leads it and handed to its workers in the
environment. Every worker joins the cluster; the last to leave stops it, the leader clears up.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg.errors import ObjectInUse
from psycopg.sql import SQL, Identifier

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.support.killable import KillablePostgres

RUN_DIR = "HOLDFAST_TEST_RUN_DIR"
TEMPLATE = "holdfast_template"
TEMPLATE_WAIT_SECONDS = 60.0

# A test's database need not survive a power cut.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}

# A loaded machine is no fault, and whoever changes nothing sees the same result: each run has the
# same examples. For others: --hypothesis-profile=searching.
hypothesis.settings.register_profile(
    "searching", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "holdfast", hypothesis.settings.get_profile("searching"), derandomize=True
)
hypothesis.settings.load_profile("holdfast")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[RUN_DIR] = str(_make_reachable_directory("holdfast-run-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and RUN_DIR in os.environ:
        run_dir = Path(os.environ.pop(RUN_DIR))
        EmbeddedPostgres(run_dir).stop()
        shutil.rmtree(run_dir)


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    """The run's Postgres, shared by all workers; fsync is off."""
    with EmbeddedPostgres(Path(os.environ[RUN_DIR]), FAST) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def template(cluster: EmbeddedPostgres) -> str:
    """The name of a database with the whole schema and no rows, to be cloned."""
    with _locked(cluster.directory / "template.lock"), _administrator(cluster) as admin:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if admin.execute(query, [TEMPLATE]).fetchone() is None:
            _build_template(cluster, admin)
    return TEMPLATE


@pytest.fixture
def database(cluster: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The owner's URL of an empty database with the whole schema."""
    name = f"t_{uuid.uuid4().hex}"
    with _administrator(cluster) as admin:
        _clone(admin, template, name)
    yield cluster.url_of(name)
    with _administrator(cluster) as admin:
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that every account can reach, unlike tmp_path, which is closed to all but one."""
    directory = _make_reachable_directory("holdfast-data-")
    yield directory
    EmbeddedPostgres(directory).stop()
    shutil.rmtree(directory)


@pytest.fixture
def private_cluster(data_dir: Path) -> Iterator[KillablePostgres]:
    """A durable cluster for one test, started."""
    with KillablePostgres(data_dir) as postgres:
        yield postgres


def _make_reachable_directory(prefix: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    directory.chmod(0o711)
    return directory


def _administrator(cluster: EmbeddedPostgres) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(cluster.url_of("postgres"), autocommit=True)


def _build_template(
    cluster: EmbeddedPostgres, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    from application.eventstore.migrate import migrate
    from projections.schema import install

    unfinished = f"{TEMPLATE}_unfinished"
    admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(unfinished)))
    admin.execute(SQL("CREATE DATABASE {}").format(Identifier(unfinished)))
    migrate(cluster.url_of(unfinished))
    install(cluster.url_of(unfinished))
    rename = SQL("ALTER DATABASE {} RENAME TO {}")
    admin.execute(rename.format(Identifier(unfinished), Identifier(TEMPLATE)))


def _clone(admin: psycopg.Connection[tuple[object, ...]], template: str, name: str) -> None:
    create = SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template))
    deadline = time.monotonic() + TEMPLATE_WAIT_SECONDS
    while True:
        try:
            admin.execute(create)
        except ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
