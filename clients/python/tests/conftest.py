"""The real service, a world of its own for each test, and a machine without settings."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import Client
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, CommonServer, Server, cloned
from tests.support.commands import Cli
from tests.support.proxy import HttpWire, http_wire

Connect = Callable[..., Client]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Commands hear what ends them although the tests may not.

    Run in the background they ignore Ctrl-C, and with nohup the end of their terminal. What they
    start inherits that, but not a handler of theirs.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if before[signal.SIGHUP] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def server(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The service that most tests share."""
    directory = tmp_path_factory.mktemp("server")
    with (
        cloned(cluster, template) as url,
        CommonServer(url, directory) as running,
    ):
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """A plain HTTP client of a namespace that only this test has."""
    with server.world() as client:
        yield client


@pytest.fixture
def wire(server: Server) -> Iterator[HttpWire]:
    """An address of the service at which it can go away and come back."""
    with http_wire(server.url) as between:
        yield between


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own settings, keys and kept writes."""
    for name in ("URL", "API_KEY", "SESSION_ID", "INSTANCE_ID", "SUPERVISOR"):
        monkeypatch.delenv(f"HOLDFAST_{name}", raising=False)
    monkeypatch.setenv("HOLDFAST_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def connect(api: Api) -> Iterator[Connect]:
    """Makes clients of the test's namespace; they are closed at its end."""
    clients: list[Client] = []

    def begin(url: str | None = None, **options: object) -> Client:
        made = Client(url or str(api.base_url).rstrip("/"), api.key, **options)  # type: ignore[arg-type]
        clients.append(made)
        return made

    yield begin
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    """A client of the test's namespace."""
    return connect()


@pytest.fixture
def cli(server: Server, api: Api) -> Cli:
    """The command, in the test's namespace."""
    return Cli(server.url, api.key)
