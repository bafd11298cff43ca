"""One real server for all acceptance tests of a run, and a namespace of its own for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, CommonServer, Server, cloned

# What a server says only when something is wrong with it.
BROKEN = ("writer_failed", "projector_failed", "event_set_aside", "job_failed")
# What a test has the database say, to see an append fail.
MEANT = "disk on fire"

Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def server(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server that most tests share. It sweeps once, at its start, and not again."""
    directory = tmp_path_factory.mktemp("server")
    with (
        cloned(cluster, template) as url,
        CommonServer(url, directory) as running,
    ):
        yield running
        failures = [line for message in BROKEN for line in running.lines(message)]
        assert [line for line in failures if MEANT not in str(line)] == []


@pytest.fixture(scope="module")
def hasty(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service under which claims soon may be taken over."""
    settings = {
        "INSTANCE_STALE_SECONDS": "0.4",
        "STALL_THRESHOLD_MS": "400",
        "CLAIM_STALE_SECONDS": "0.5",
    }
    directory = tmp_path_factory.mktemp("hasty")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """A client of a namespace that only this test has."""
    with server.world() as client:
        yield client


@pytest.fixture
def other(server: Server) -> Iterator[Api]:
    """A client of a second namespace."""
    with server.world() as client:
        yield client


@pytest.fixture
def past(server: Server, api: Api) -> Past:
    """What happened in this test's namespace before it began."""
    assert server.database_url is not None
    return Past(server.database_url, api.namespace)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts servers with settings of their own: ``start(url, STALL_THRESHOLD_MS="100")``."""

    def begin(database_url: str | None, **settings: str) -> AbstractContextManager[Server]:
        return Server(database_url, tmp_path, **settings)

    return begin


@pytest.fixture
def store(server: Server) -> Iterator[psycopg.Connection]:
    """The shared server's database, seen by its owner."""
    assert server.database_url is not None
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def stored(store: psycopg.Connection, api: Api) -> Callable[[], int]:
    """Tells how many events this test's namespace has."""

    def count() -> int:
        query = "SELECT count(*) FROM event_store WHERE namespace = %s"
        row = store.execute(query, [api.namespace]).fetchone()
        assert row is not None
        return int(row[0])

    return count
