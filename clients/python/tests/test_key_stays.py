"""The API key goes to the service alone, and nothing that lies about runs in the supervisor."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, InvalidInput
from holdfast.git import WorkingCopy
from holdfast.request import Request, Write, is_of_service, new_key
from holdfast.settings import is_in_clear
from holdfast.spool import Spool
from tests.acceptance.serving import Api, ok
from tests.support.commands import Cli
from tests.support.proxy import HttpWire

OTHERS = [
    "http://{trap}/api/sessions",
    "//{trap}/api/sessions",
    "/\\{trap}/api/sessions",
    "\\\\{trap}\\api",
    "https://{trap}/",
    "HTTP://key@{trap}/api/sessions",
    "/api/../../{trap}",
    "/api/%2e%2e/x",
    "/api/./sessions",
    "/api//{trap}/",
    "/api/sessions?x=1",
    "/api/sessions#x",
    "/api/sessions\r\nHost: {trap}",
    "/api/sessions\x00",
    "/api/sess ions",
    "/elsewhere",
    "api/sessions",
    "@{trap}/api/sessions",
    ":80@{trap}/api/sessions",
    "",
    "/api/" + "x" * 10_000,
]


@pytest.fixture
def trap() -> Iterator[tuple[str, list[bytes]]]:
    """An address that is not the service's, and what was sent to it."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                heard.append(client.recv(65_536))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def kept(spool: Spool, path: str, **columns: object) -> None:
    """A row as someone else may have written it."""
    write = Write(Request("POST", "/api/sessions", {"project_id": "p"}, idempotency_key=new_key()))
    spool.keep(write)
    columns["path"] = path
    with closing(sqlite3.connect(spool.path)) as db, db:
        for name, value in columns.items():
            db.execute(
                f"UPDATE entry SET {name} = ? WHERE number = (SELECT max(number) FROM entry)",
                [value],
            )


def test_what_the_spool_holds_is_sent_to_the_service_alone(
    connect: Connect, wire: HttpWire, api: Api, trap: tuple[str, list[bytes]]
) -> None:
    address, heard = trap
    client = connect(wire.url, retries=0)
    for path in OTHERS:
        kept(client.spool, path.format(trap=address))
    client.recorder.record(
        Write(Request("POST", "/api/machines", {"hostname": "h", "docker_slots": []}))
    )
    assert client.flush()

    assert heard == []
    assert [one.code for one in client.spool.refused()] == ["unusable_entry"] * len(OTHERS)
    assert len(ok(api.get("/api/machines"))["machines"]) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"method": "GET"},
        {"method": "POST /api/x HTTP/1.1\r\nX: y\r\n\r\n"},
        {"idempotency_key": "a\r\nX-Evil: 1"},
        {"idempotency_key": b"\xff"},
        {"body": "no JSON"},
        {"body": "[]"},
        {"body": b"\x00\xff"},
        {"body": "[" * 100_000},
        {"path": b"/api/sessions"},
        {"path": 5},
    ],
)
def test_a_row_that_no_client_wrote_is_put_aside_and_the_rest_is_sent(
    connect: Connect, wire: HttpWire, api: Api, columns: dict[str, object]
) -> None:
    client = connect(wire.url, retries=0)
    kept(client.spool, **{"path": "/api/sessions", **columns})  # type: ignore[arg-type]
    client.spool.keep(
        Write(
            Request(
                "POST",
                "/api/machines",
                {"hostname": "h", "docker_slots": []},
                idempotency_key=new_key(),
            )
        )
    )

    assert client.flush()
    assert len(ok(api.get("/api/machines"))["machines"]) == 1
    assert [one.code for one in client.spool.refused()] == ["unusable_entry"]


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_else_is_ever_asked_for(client: Client, path: str) -> None:
    assert not is_of_service(path.format(trap="x"))
    with pytest.raises(InvalidInput):
        client.read(Request("GET", path.format(trap="x")))


@pytest.mark.parametrize("what", ["folder", "file", "a link", "a pipe", "a folder instead"])
def test_a_spool_that_others_can_write_is_not_used(
    connect: Connect, wire: HttpWire, what: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = connect(wire.url, lenient=True, retries=0)
    spool = client.spool
    kept(spool, "/api/sessions")
    if what == "folder":
        spool.path.parent.chmod(0o777)
    elif what == "file":
        spool.path.chmod(0o666)
    else:
        spool.path.rename(tmp_path / "elsewhere")
        if what == "a link":
            spool.path.symlink_to(tmp_path / "elsewhere")
        elif what == "a pipe":
            os.mkfifo(spool.path, 0o600)
        else:
            spool.path.mkdir(0o700)
    wire.down()
    with caplog.at_level(logging.WARNING):
        reply = client.sessions.create("odin", "laptop")

    assert reply["unsent"]  # type: ignore[typeddict-item]
    assert client.spool.stats().kept == 1
    assert str(spool.path if what != "folder" else spool.path.parent) in caplog.text
    assert client.spool.trouble() is not None


def test_a_spool_of_another_user_is_not_used(connect: Connect, wire: HttpWire) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    client = connect(wire.url, retries=0)
    kept(client.spool, "/api/sessions")
    os.chown(client.spool.path.parent, 12345, -1)

    assert client.spool.first() is None
    assert "12345" in str(client.spool.trouble())


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://localhost", False),
        ("http://[::1]:80", False),
        ("http://127.9.9.9", False),
        ("https://example.test", False),
        ("http://example.test", True),
        ("http://10.0.0.1:8080", True),
        ("http://localhost.example.test", True),
    ],
)
def test_a_key_that_goes_in_clear_is_told_of_once(
    url: str, clear: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_in_clear(url) == clear
    with caplog.at_level(logging.WARNING):
        Client(url, "key").close()
        Client(url, "key").close()

    assert caplog.text.count("in clear") == clear


def test_the_doctor_tells_of_a_key_that_goes_in_clear(cli: Cli) -> None:
    told = cli("doctor", HOLDFAST_URL="http://holdfast.invalid:1", HOLDFAST_API_KEY="k").out

    assert "in clear" in told


CONFIGURATIONS = {
    "a monitor": ["core.fsmonitor", "{bait}"],
    "hooks": ["core.hooksPath", "{hooks}"],
    "a clean filter": ["filter.x.clean", "{bait}"],
    "a filter process": ["filter.x.process", "{bait}"],
    "a filter with a strange name": ["filter.x=y.z.clean", "{bait}"],
    "ssh": ["core.sshCommand", "{bait}"],
    "a pager": ["core.pager", "{bait}"],
    "an alias": ["alias.status", "!{bait}"],
    "a credential helper": ["credential.helper", "!{bait}"],
    "an external diff": ["diff.external", "{bait}"],
    "a text conversion": ["diff.x.textconv", "{bait}"],
}


def git(folder: Path, *arguments: str) -> None:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=n", "-c", "user.email=e@example.test"]
    subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environ, check=True, capture_output=True
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A working copy from elsewhere."""
    folder = tmp_path / "copy"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("a")
    (folder / ".gitattributes").write_text("*.txt filter=x diff=x\n*.md filter=x=y.z\n")
    (folder / "b.md").write_text("b")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """A program that tells that it ran, and with which key."""
    program = tmp_path / "bait"
    program.write_text(f'#!/bin/sh\necho "ran $HOLDFAST_API_KEY" >> {tmp_path}/caught\ncat\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_nothing_that_a_working_copy_names_is_run(
    copy: Path, bait: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEY", "secret")
    hooks = bait.parent / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc", "reference-transaction"):
        (hooks / name).symlink_to(bait)
    name, value = CONFIGURATIONS[what]
    git(copy, "config", name, value.format(bait=bait, hooks=hooks))
    for file in ("a.txt", "b.md"):
        # As large as before: only its content tells whether it changed.
        (copy / file).write_text("z")
        os.utime(copy / file, (1, 1))

    state = WorkingCopy(copy, timeout=20).state()

    assert not (bait.parent / "caught").exists()
    assert state is not None
    assert (state["branch"], state["dirty_files"]) == ("main", 2)


def test_a_submodule_s_own_configuration_is_not_asked(copy: Path, bait: Path) -> None:
    inner = copy / "inner"
    inner.mkdir()
    git(inner, "init", "-q", "-b", "main")
    git(inner, "commit", "-q", "--allow-empty", "-m", "inner")
    git(copy, "add", "inner")
    git(copy, "commit", "-qm", "second")
    git(inner, "config", "core.fsmonitor", str(bait))
    (inner / "new").write_text("x")

    assert WorkingCopy(copy, timeout=20).state() is not None
    assert not (bait.parent / "caught").exists()


def test_a_partial_clone_fetches_nothing(copy: Path, bait: Path) -> None:
    git(copy, "config", "extensions.partialClone", "origin")
    git(copy, "config", "remote.origin.promisor", "true")
    git(copy, "config", "remote.origin.url", f"ext::{bait}")
    git(copy, "config", "protocol.ext.allow", "always")
    for one in (copy / ".git" / "objects").glob("??/*"):
        one.unlink()

    WorkingCopy(copy, timeout=20).state()

    assert not (bait.parent / "caught").exists()


def test_what_the_environment_says_to_git_does_not_count(
    copy: Path, bait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(bait))

    assert (WorkingCopy(copy, timeout=20).state() or {}).get("branch") == "main"
    assert not (bait.parent / "caught").exists()


def test_a_program_called_git_in_the_folder_is_not_run(
    copy: Path, bait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "git").symlink_to(bait)
    monkeypatch.setenv("PATH", f".:{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(copy)

    assert WorkingCopy(copy, timeout=20).state() is not None
    assert not (bait.parent / "caught").exists()


def test_a_copy_that_never_stops_talking_is_left_alone(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.git.MAX_OUTPUT_BYTES", 100)
    for number in range(50):
        (copy / f"new-{number}").write_text("x")

    assert WorkingCopy(copy, timeout=20).state() is None
