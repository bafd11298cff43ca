"""What the README shows does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST

from holdfast import Client
from tests.acceptance.serving import Api, Server, ok
from tests.support.commands import Cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other(
    server: Server, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the feed, which has no end."""
    monkeypatch.setenv("HOLDFAST_URL", server.url)
    monkeypatch.setenv("HOLDFAST_API_KEY", api.key or "")
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    other = ("pip install", "follow", "holdfast status", "holdfast run", "mcpServers")
    programs = [textwrap.dedent(b) for b in blocks if not any(word in b for word in other)]
    shared = {"session_id": api.session()["session_id"]}
    for program in programs:
        exec(compile(program, "README.md", "exec"), shared)
    shared["client"].close()

    assert len(programs) == 4
    statuses = [s["status"] for s in ok(api.get("/api/sessions?project_id=odin"))["sessions"]]
    assert statuses == ["completed", "completed"]
    [agent] = ok(api.get("/api/instances"))["instances"]
    assert agent["status"] == "closed"


def test_the_commands_do_what_they_say_one_after_the_other(client: Client, cli: Cli) -> None:
    agent = client.instances.register("odin")["instance_id"]
    failed = client.sessions.create("odin", "laptop")["session_id"]
    client.sessions.mark_failed(failed, "out of memory")
    mine = {"HOLDFAST_SESSION_ID": client.sessions.create("loki", "laptop")["session_id"]}
    shown = {"odin-PS-8f4a2b": agent, "3f2a9c1e": failed[:8]}
    lines = [
        shlex.split(line, comments=True)[1:]
        for line in README.splitlines()
        if line.startswith("    holdfast ") and not line.startswith("    holdfast run ")
    ]
    for words in lines:
        cli.ok(*(shown.get(word, word) for word in words), **mine)

    assert len(lines) == 10
    assert client.work_items.get("SD-7")["completed_by"] == mine["HOLDFAST_SESSION_ID"]
    assert client.sessions.get(failed)["recovered_to"]


def test_any_process_can_be_supervised_as_shown(
    server: Server, api: Api, client: Client, tmp_path: Path
) -> None:
    """Its examples, with a command of this name for each that they run."""
    for command in ("claude", "make"):
        (tmp_path / command).write_text('#!/bin/sh\necho "$HOLDFAST_SESSION_ID"\n')
        (tmp_path / command).chmod(0o700)
    environ = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOLDFAST_URL": server.url,
        "HOLDFAST_API_KEY": api.key or "",
    }
    there = client.sessions.create("odin", "laptop")["session_id"]
    lines = [line for line in README.splitlines() if line.startswith("    holdfast run ")]
    for line in lines:
        words = [HOLDFAST, *shlex.split(line.replace("0e6a47de", there[:8]))[1:]]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
        assert client.sessions.get(done.stdout.strip())["status"] == "completed"

    assert len(lines) == 3
    assert client.work_items.get("SD-7")["status"] == "completed"
    assert client.sessions.get(there)["status"] == "completed"


def test_the_mcp_servers_entry_starts_the_tools(server: Server, api: Api) -> None:
    [entry] = re.findall(r"^    (\{\"mcpServers.*)$", README, re.MULTILINE)
    shown = json.loads(entry)["mcpServers"]["holdfast"]
    assert shown == {"command": "holdfast", "args": ["mcp"]}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    done = subprocess.run(
        [HOLDFAST, *shown["args"]],
        env={**os.environ, "HOLDFAST_URL": server.url, "HOLDFAST_API_KEY": api.key or ""},
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)["result"]["tools"]) > 8
