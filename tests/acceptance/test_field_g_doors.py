"""Field cases 29: what lets strangers in, or obeys them."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.past import Past
from tests.acceptance.serving import (
    PLAIN_KEY,
    ROOT,
    START_SECONDS,
    Api,
    Server,
    attempt,
    environment,
    eventually,
    ok,
)

PLANTED = "5f0c2ab9d8e74136b1c0d9e8f7a65432"
WEAK = ("a", "change-me", "your-api-key-your-api-key-1", "x" * 40, "password-for-production-1")


@pytest.mark.parametrize(
    "where",
    [
        {"ENVIRONMENT": "production"},
        {"HOST": "0.0.0.0"},
        {"HOST": "::"},
        {"HOST": "192.168.7.7"},
        {"HOST": "odin.example.org"},
    ],
    ids=lambda where: next(iter(where.values())),
)
def test_a_key_that_can_be_guessed_ends_the_start(where: dict[str, str]) -> None:
    """Given weak keys in production, or where others can reach it, then each number is told."""
    url = "postgresql://nobody@127.0.0.1:1/none"
    keys = ",".join([str(uuid4()), *(f"team:{weak}" for weak in WEAK)])
    failed = attempt(DATABASE_URL=url, API_KEYS=keys, **where)
    assert failed.returncode == 2, failed.stderr
    told = re.findall(r"^API_KEYS: entry (\d+) ", failed.stderr, re.MULTILINE)
    assert told == [str(number) for number in range(2, 2 + len(WEAK))]
    for weak in WEAK[1:]:
        assert weak not in failed.stderr + failed.stdout
    assert "Traceback" not in failed.stderr


def test_on_loopback_a_weak_key_will_do(database: str, tmp_path: Path) -> None:
    """Given a development service that only its own machine reaches, then any key is accepted."""
    with Server(database, tmp_path, API_KEYS="a", HOST="127.0.0.2") as server:
        with Api(server.url, "a", "default") as api:
            api.session()
        assert "warning" not in server.log()


def test_one_key_in_two_namespaces_ends_the_start() -> None:
    """Given one key for two namespaces, then the start fails and names both entries."""
    key = str(uuid4())
    failed = attempt(API_KEYS=f"{key},team-a:{uuid4()},team-b:{key}")
    assert failed.returncode == 2
    assert "API_KEYS: entries 1 and 3 are the same key in two namespaces" in failed.stderr
    assert "default" in failed.stderr
    assert "team-b" in failed.stderr
    assert key not in failed.stderr


def test_a_reachable_development_service_says_so(database: str, tmp_path: Path) -> None:
    """Given HOST=0.0.0.0 in development, then it starts, with a warning on console and in log."""
    with Server(database, tmp_path, HOST="0.0.0.0") as server:
        assert "warning: other machines can reach this development service" in server.log()
        [line] = server.lines("development_service_is_reachable")
        assert line["level"] == "WARNING"
        assert line["context"]["host"] == "0.0.0.0"


def test_production_says_nothing_of_the_kind(database: str, tmp_path: Path) -> None:
    """Given production with good keys, then there is nothing to warn of."""
    with Server(database, tmp_path, HOST="0.0.0.0", ENVIRONMENT="production") as server:
        assert "other machines" not in server.log()


def test_names_that_are_mistyped_are_told(database: str, tmp_path: Path) -> None:
    """Given API_KEY for API_KEYS, or ENVIROMENT, then each is named with what may be meant."""
    failed = attempt(ENVIRONMENT="production", DATABASE_URL=database, API_KEY="x-secret-x")
    assert failed.returncode == 2
    assert "API_KEYS: required when ENVIRONMENT=production (API_KEY is set" in failed.stderr
    assert "x-secret-x" not in failed.stderr
    with Server(database, tmp_path, ENVIROMENT="production") as server:
        assert "ENVIROMENT is set but is not a setting. Did you mean ENVIRONMENT?" in server.log()
        assert len(server.lines("setting_perhaps_mistyped")) == 1


@pytest.mark.parametrize(
    "word", ["p@ss-w0rd", "pa/ss-w0rd", "1/pass-w0rd@", "pa?ss-w0rd", "%zz-w0rd"]
)
@pytest.mark.parametrize("setting", ["DATABASE_URL", "MIGRATION_DATABASE_URL"])
def test_a_password_is_never_told(word: str, setting: str) -> None:
    """Given a URL that is taken apart in the wrong place, then no part of its password is shown."""
    good = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "API_KEYS": str(uuid4())}
    failed = attempt(**{**good, setting: f"postgresql://owner:{word}@127.0.0.1:1/none"})
    assert failed.returncode == 2, failed.stderr
    assert f"{setting}: cannot be read" in failed.stderr
    for output in (failed.stderr, failed.stdout):
        assert "w0rd" not in output
        assert "Traceback" not in output


def test_a_refused_connection_does_not_tell_the_password() -> None:
    """Given a good URL of a database that is not there, then the error has no password."""
    url = "postgresql://owner:p%40ss-w0rd@127.0.0.1:1/none"
    failed = attempt(DATABASE_URL=url, API_KEYS=str(uuid4()))
    assert failed.returncode == 6
    assert "w0rd" not in failed.stderr + failed.stdout


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "external"])
def test_a_planted_key_is_not_believed(embedded: bool, database: str, data_dir: Path) -> None:
    """Given a folder that others can write, with a key in it, then the start fails saying why."""
    (data_dir / "api_key").write_text(PLANTED)
    (data_dir / "api_key").chmod(0o600)
    data_dir.chmod(0o777)
    url = {} if embedded else {"DATABASE_URL": database}
    failed = attempt(DATA_DIR=str(data_dir), **url)
    assert failed.returncode == 6, failed.stderr
    assert f"others can write in DATA_DIR {data_dir}" in failed.stderr
    assert PLANTED not in failed.stderr + failed.stdout
    assert "Traceback" not in failed.stderr
    data_dir.chmod(0o711)


def test_a_folder_that_is_made_is_closed(database: str, tmp_path: Path) -> None:
    """Given a DATA_DIR that is not there, then it is made for its owner alone, and the key too."""
    folder = tmp_path / "new"
    server = Server(database, tmp_path, DATA_DIR=str(folder))
    del server._environ["API_KEYS"]
    with server:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "api_key").stat().st_mode & 0o777 == 0o600


@contextmanager
def at_a_terminal(database: str, directory: Path) -> Iterator[tuple[str, bytearray]]:
    """A server whose output is a terminal: its address, and all that was printed so far."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "DATABASE_URL": database,
        "DATA_DIR": str(directory),
        "PORT": str(port),
        "API_KEYS": PLAIN_KEY,
        "STALL_THRESHOLD_MS": "100",
        "SWEEP_SECONDS": "86400",
    }
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "interfaces.host.server", "serve"],
        cwd=ROOT,
        env=environment(settings),
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    printed = bytearray()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        drain(leader, printed)
        try:
            return httpx.get(f"{url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually("an answer", answers, START_SECONDS)
        yield url, printed
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            drain(leader, printed)
        drain(leader, printed)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def drain(descriptor: int, into: bytearray) -> None:
    """What has been printed since."""
    while select.select([descriptor], [], [], 0.1)[0]:
        try:
            into += os.read(descriptor, 65_536)
        except OSError:  # nobody has the terminal open any more
            return


def test_a_project_s_name_is_not_obeyed_by_the_terminal(database: str, tmp_path: Path) -> None:
    """Given names with terminal escapes, recorded by an earlier version, then they are shown."""
    tags = {
        "ESC": "\x1b[2J\x1b]0;owned\x07",
        "C1": "\x9b31m",
        "direction": "\u202egnp.exe",
        "separator": "a\u2028b",
    }
    past = Past(database, "default")
    for tag, text in tags.items():
        past.session(timedelta(minutes=10), project_id=f"{tag}{text}")
    with at_a_terminal(database, tmp_path) as (url, printed):
        api = Api(url, PLAIN_KEY, "default")
        with api:
            api.session(project_id="harmless")

            def all_are_stalled() -> bool:
                stalled = ok(api.get("/api/sessions/stalled"))["stalled_sessions"]
                return len(stalled) == len(tags) + 1

            eventually("all to be stalled", all_are_stalled)
            api.post("/api/sessions/detect-failures")
            path = "/api/nothing/%1b%5b2J%c2%9b31m%e2%80%ae"
            api.get(path, headers={"X-API-Key": "\x1b[2J"})
    shown = printed.decode()
    assert "harmless" in shown
    for tag in tags:
        assert tag in shown
    # Colours and the progress bar are the server's own.
    colourless = re.sub(r"\x1b\[\??[0-9;]*[mhlK]", "", shown)
    for char in "\x1b\x07\x9b\u202e\u2028":
        assert char not in colourless, repr(char)


def test_a_setting_with_escapes_is_not_obeyed_either(tmp_path: Path) -> None:
    """Given a setting with terminal escapes, then the complaint about it has none."""
    failed = attempt(DATA_DIR=str(tmp_path), HOST="\x1b[2Jodin\u202e", API_KEYS="x")
    assert failed.returncode in (2, 6)
    assert "odin" in failed.stderr
    assert "\x1b" not in failed.stderr
    assert "\u202e" not in failed.stderr


def test_workers_share_the_key_that_was_made(database: str, tmp_path: Path, start: Start) -> None:
    """Given WORKERS=2 and no keys, then both let the made key in."""
    server = Server(database, tmp_path, DATA_DIR=str(tmp_path / "data"), WORKERS="2")
    del server._environ["API_KEYS"]
    with server:
        key = (tmp_path / "data" / "api_key").read_text().strip()
        for _ in range(10):
            with Api(server.url, key, "default") as api:
                api.session()


def test_whoever_reads_the_address_may_use_it_at_once(database: str, tmp_path: Path) -> None:
    """Given the line with the address, then a connection is taken from that moment on."""
    settings = {
        "DATABASE_URL": database,
        "DATA_DIR": str(tmp_path),
        "PORT": "0",
        "API_KEYS": PLAIN_KEY,
        "WORKERS": "2",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "interfaces.host.server", "serve"],
        cwd=ROOT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "serves on" in line)
            url = line.split()[-1]
            reply = httpx.get(f"{url}/health", trust_env=False, timeout=START_SECONDS)
            assert reply.status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=START_SECONDS)
