"""How the command ends: exit codes, one-line errors, the doctor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import Client
from holdfast.cli import failing
from holdfast.cli.app import COMMANDS
from holdfast.cli.diagnosis import clock
from holdfast.cli.service import SEND_SECONDS
from holdfast.errors import FieldError, InvalidInput
from holdfast.request import Request
from holdfast.transport import Reply, Transport
from tests.acceptance.serving import Server
from tests.support.commands import Cli

NOBODY = "http://127.0.0.1:9"
# A call of every command that would succeed with the service there.
CALLS = {
    "status": [],
    "instances": [],
    "topology": [],
    "next": [],
    "claim": ["A", "--session", "3f2a9c1e-0000-4000-8000-000000000000"],
    "release": ["A", "--session", "3f2a9c1e-0000-4000-8000-000000000000"],
    "complete": ["A", "--session", "3f2a9c1e-0000-4000-8000-000000000000"],
    "add": ["A"],
    "reopen": ["A", "--reason", "it is wrong"],
    "cancel": ["A"],
    "remove": ["A"],
    "machines": [],
    "end": ["3f2a9c1e-0000-4000-8000-000000000000"],
    "events": ["A"],
    "replay": ["A"],
    "watch": [],
    "resume": ["odin-PS-000000"],
    "recover": ["3f2a9c1e", "--onto", "desk"],
}


def test_every_command_is_called_in_these_tests() -> None:
    assert set(CALLS) | {"doctor", "run", "mcp"} == set(COMMANDS)


@pytest.mark.parametrize("command", CALLS)
def test_a_service_that_is_not_there_is_said_with_where_and_how_to_start_it(
    cli: Cli, command: str
) -> None:
    ended = cli(command, *CALLS[command], HOLDFAST_URL=NOBODY)

    assert (ended.code, ended.out) == (6, "")
    assert ended.err.startswith(f"holdfast: {NOBODY} cannot be reached: ")
    assert "holdfast-server serve" in ended.err
    assert "HOLDFAST_URL" in ended.err
    assert ended.err.count("\n") == 1
    assert cli(command, *CALLS[command], "--json", HOLDFAST_URL=NOBODY).error()["code"] == (
        "unreachable"
    )


@pytest.mark.parametrize("command", CALLS)
def test_a_wrong_key_is_said_with_what_to_do(cli: Cli, command: str) -> None:
    ended = cli(command, *CALLS[command], HOLDFAST_API_KEY="not-the-key")

    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith("holdfast: Invalid API key: set HOLDFAST_API_KEY")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
def test_a_malformed_key_is_said_with_what_to_do(cli: Cli, key: str) -> None:
    ended = cli("status", HOLDFAST_API_KEY=key)

    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith("holdfast: Malformed API key: set HOLDFAST_API_KEY")
    assert ended.err.count("\n") == 1
    code, found = checks(cli, HOLDFAST_API_KEY=key)
    assert (code, found["service"], found["key"]) == (5, True, False)


@pytest.mark.parametrize("command", [*CALLS, "doctor"])
def test_an_unknown_option_is_a_usage_error(cli: Cli, command: str) -> None:
    ended = cli(command, "--no-such-option")

    assert (ended.code, ended.out) == (2, "")
    assert "--no-such-option" in ended.err


@pytest.mark.parametrize("command", [*CALLS, "doctor"])
def test_every_command_has_help_and_json(cli: Cli, command: str) -> None:
    told = cli.ok(command, "--help")

    assert told.startswith(f"Usage: holdfast {command} ")
    assert "--json" in told


def test_the_process_ends_with_the_exit_code(client: Client, cli: Cli) -> None:
    """Spec 11: 0 done, 2 usage, 3 conflict, 4 not found, 5 not authorised, 6 unavailable."""
    holder, mine = (client.instances.register("odin")["instance_id"] for _ in range(2))
    client.claims.take("A", instance_id=holder)

    assert cli.process("next").code == 0
    assert cli.process("claim").code == 2
    assert cli.process("no-such-command").code == 2
    assert cli.process("claim", "A", "--instance", mine).code == 3
    assert cli.process("events", "nobody").code == 4
    assert cli.process("status", HOLDFAST_API_KEY="x").code == 5
    assert cli.process("status", HOLDFAST_URL=NOBODY).code == 6


def test_something_else_at_the_address_is_told_from_the_service(cli: Cli) -> None:
    code = """
import http.server, sys
class Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Other)
print(server.server_port, flush=True)
server.serve_forever()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        ended = cli("status", HOLDFAST_URL=f"http://127.0.0.1:{int(other.stdout.readline())}")
        other.kill()

    assert ended.code == 6
    assert "is it a holdfast service?" in ended.err
    assert ended.err.count("\n") == 1


def test_an_address_that_is_none_is_a_usage_error(cli: Cli) -> None:
    ended = cli("status", HOLDFAST_URL="nonsense")

    assert ended.code == 2
    assert "HOLDFAST_URL: 'nonsense' is no address" in ended.err


def test_a_holder_that_is_not_there_is_not_found(cli: Cli) -> None:
    """The service says 400, as it is but a field of the claim."""
    nobody = "3f2a9c1e-0000-4000-8000-000000000000"
    ended = cli("claim", "A", "--session", nobody)

    assert ended.code == 4
    assert ended.err == f"holdfast: session_id: there is no session {nobody}\n"
    assert cli("claim", "A", HOLDFAST_INSTANCE_ID="odin-PS-000000").code == 4


def test_a_field_that_the_service_refuses_is_named_once(client: Client, cli: Cli) -> None:
    agent = client.instances.register("odin")["instance_id"]

    ended = cli("replay", agent, "--to", "9")

    assert ended.code == 2
    assert ended.err.startswith("holdfast: to_sequence_num: must ")
    assert ended.err.count("to_sequence_num") == ended.err.count("\n") == 1


def test_fields_that_the_service_refuses_have_a_line_each() -> None:
    fields: list[FieldError] = [
        {"field": "priority", "message": "must be an integer"},
        {"field": "title", "message": "is too long"},
    ]
    both = "priority: must be an integer; title: is too long"
    lines = "  priority: must be an integer\n  title: is too long"

    assert failing.told(InvalidInput(both, errors=fields)) == f"holdfast:\n{lines}"
    other = InvalidInput("Not this way", errors=fields)
    assert failing.told(other) == f"holdfast: Not this way\n{lines}"


def test_help_loads_neither_rich_nor_httpx() -> None:
    """What it takes to print help is all that is loaded for it: so it is there at once."""
    code = """
import sys
from holdfast.cli.app import app
try:
    app(["--help"])
except SystemExit:
    print([name for name in ("rich.console", "httpx", "holdfast.client") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_and_all_commands_are_told(cli: Cli) -> None:
    assert cli.process("--version").out.startswith("holdfast 0.")
    told = cli.process("--help").out
    assert all(f"  {command} " in told for command in COMMANDS)
    assert "6 service unavailable" in told.replace("\n ", "")


def test_an_output_that_knows_only_ascii_is_no_obstacle(client: Client, cli: Cli) -> None:
    client.work_items.put("A", title="Grüße")

    ended = cli.process("next", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert ended.code == 0
    assert "[A] - Gr\\xfc\\xdfe" in ended.out


def checks(cli: Cli, *arguments: str, **environ: str) -> tuple[int, dict[str, bool]]:
    """The doctor's exit code, and which checks went well."""
    ended = cli("doctor", "--json", *arguments, **environ)
    return ended.code, {check["name"]: check["ok"] for check in ended.json()["checks"]}


def test_the_doctor_finds_all_well(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    agent = client.instances.register("odin")["instance_id"]
    own = {"HOLDFAST_SESSION_ID": session, "HOLDFAST_INSTANCE_ID": agent}

    code, found = checks(cli, **own)

    assert code == 0
    assert list(found) == [
        "address", "service", "clock", "versions", "key", "session", "instance", "spool",
    ]  # fmt: skip
    assert all(found.values())
    lines = cli.ok("doctor", **own).splitlines()
    assert all(line.startswith("✓") for line in lines)
    assert f"{session} is active" in lines[5]


def test_the_doctor_says_what_to_do_about_a_service_that_is_away(cli: Cli) -> None:
    code, found = checks(cli, HOLDFAST_URL=NOBODY)

    assert (code, found) == (6, {"address": True, "service": False, "spool": True})
    told = cli("doctor", HOLDFAST_URL=NOBODY).out
    assert f"✗  service  {NOBODY} cannot be reached" in told
    assert "→ start it with `holdfast-server serve`" in told


def test_the_doctor_says_what_to_do_about_a_key(server: Server, cli: Cli) -> None:
    code, found = checks(cli, HOLDFAST_API_KEY="not-the-key")

    assert (code, found["service"], found["key"]) == (5, True, False)
    told = Cli(server.url, None)("doctor")
    assert told.code == 5
    assert "✗  key" in told.out
    assert "→ set HOLDFAST_API_KEY" in told.out


@pytest.mark.parametrize(
    ("told", "ok", "found"),
    [
        (100.5, True, "agrees"),
        (96.0, True, "agrees"),
        (105.9, True, "agrees"),
        (90.0, False, "is 10 s ahead of the service's"),
        (121.0, False, "is 20 s behind the service's"),
    ],
)
def test_the_doctor_compares_clocks(told: float, ok: bool, found: str) -> None:
    """The service's answer came between 100 and 101 by this machine's clock."""
    check = clock(100.0, told, 101.0)

    assert (check.ok, check.advice is None) == (ok, ok)
    assert found in check.found


def test_the_doctor_sees_that_one_s_own_session_is_over(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    agent = client.instances.register("odin")["instance_id"]
    client.sessions.complete(session)
    client.instances.close(agent)

    code, found = checks(cli, HOLDFAST_SESSION_ID=session, HOLDFAST_INSTANCE_ID=agent)
    _, strange = checks(cli, HOLDFAST_SESSION_ID="x", HOLDFAST_INSTANCE_ID="odin-PS-000000")

    assert (code, found["session"], found["instance"]) == (1, False, False)
    assert (strange["session"], strange["instance"]) == (False, False)


@pytest.fixture
def agent(client: Client) -> str:
    """An instance whose client could not send what it did last."""
    instance_id = client.instances.register("odin")["instance_id"]
    keep(client.settings.url, client.settings.api_key, instance_id)
    return instance_id


def keep(url: str, api_key: str | None, instance_id: str) -> None:
    """A client finds no way to the service, and ends."""
    with Client(url, api_key, lenient=True, retries=0) as lost:
        lost.transport.close()
        lost.instances.emit(instance_id, "epic_started", {"epic_id": "e1"})


def epics(client: Client, instance_id: str) -> int:
    """How many epics the instance has started."""
    found = client.instances.events(instance_id, event_type="epic_started")
    return int(found["total_count"])


def test_the_doctor_finds_what_waits_in_the_spool_and_sends_it(
    client: Client, cli: Cli, agent: str
) -> None:
    code, found = checks(cli)
    told = cli("doctor").out
    assert epics(client, agent) == 0
    after, sent = checks(cli, "--send")

    assert (code, found["spool"]) == (1, False)
    assert "1 waiting to be sent" in told
    assert "→ send them with `holdfast doctor --send`" in told
    assert (after, sent["spool"]) == (0, True)
    assert epics(client, agent) == 1


def test_any_command_first_sends_what_was_kept(client: Client, cli: Cli, agent: str) -> None:
    """Or finished work whose report still waits would be shown as unfinished."""
    first, second = cli("status"), cli("status")

    assert epics(client, agent) == 1
    assert (first.code, first.err) == (
        0,
        "holdfast: sent 1 write that had been kept for the service\n",
    )
    assert (second.code, second.err) == (0, "")


def test_an_item_whose_completion_waits_is_not_claimed_by_another(client: Client, cli: Cli) -> None:
    holder = client.sessions.create("odin", "laptop")["session_id"]
    rival = client.sessions.create("thor", "laptop")["session_id"]
    client.claims.take("A", session_id=holder)
    with Client(client.settings.url, client.settings.api_key, lenient=True, retries=0) as lost:
        lost.transport.close()
        lost.work_items.complete("A", session_id=holder)

    ended = cli("claim", "A", "--session", rival)
    assert ended.code == 3
    assert "The work item is completed already." in ended.err
    assert client.work_items.get("A")["status"] == "completed"


def test_what_cannot_be_sent_before_a_command_is_told_with_why(cli: Cli) -> None:
    keep(NOBODY, "key", "odin-PS-000000")
    ended = cli("status", HOLDFAST_URL=NOBODY, HOLDFAST_API_KEY="key")

    assert ended.code == 6
    first, second = ended.err.splitlines()
    assert first.startswith(f"holdfast: 1 write still not sent: {NOBODY} cannot be reached")
    assert "holdfast-server serve" in second
    told = cli("status", "--json", HOLDFAST_URL=NOBODY, HOLDFAST_API_KEY="key")
    assert told.error()["code"] == "unreachable"


@pytest.mark.usefixtures("agent")
def test_a_service_that_hangs_does_not_hold_up_a_command_over_what_is_kept(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    send = Transport.send

    def noted(self: Transport, request: Request, **options: Any) -> Reply:
        if request.method == "POST":
            waited.append(options["timeout"])
        return send(self, request, **options)

    monkeypatch.setattr(Transport, "send", noted)
    assert cli("status").code == 0

    assert waited
    assert max(waited) <= SEND_SECONDS


def test_the_doctor_gives_what_waits_for_another_key_to_this_one_if_a_person_says_so(
    client: Client, cli: Cli, agent: str
) -> None:
    client.flush()
    with Client(client.settings.url, "mistyped", lenient=True) as mistaken:
        mistaken.instances.emit(agent, "epic_started", {"epic_id": "e2"})
        key_id = mistaken.spool.key_id
    told = cli("doctor", HOLDFAST_API_KEY="mistyped").out
    assert f"set the right one and run `holdfast doctor --adopt {key_id}`" in told
    code, found = checks(cli)
    told = cli("doctor", "--send").out

    assert (code, found["spool"], found["other key"]) == (1, True, False)
    assert f"1 written under the API key {key_id}" in told
    assert f"`holdfast doctor --adopt {key_id}`" in told
    assert epics(client, agent) == 1
    assert checks(cli, "--adopt", "nobody's")[0] == 1
    told = cli.ok("doctor", "--adopt", key_id)
    assert f"1 that waited for the API key {key_id} are now sent with the current one" in told
    assert epics(client, agent) == 2


def test_the_doctor_sees_that_nothing_can_be_kept(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "no folder"
    folder.write_text("but a file")
    code, found = checks(cli, HOLDFAST_SPOOL_DIR=str(folder))
    told = cli("doctor", HOLDFAST_SPOOL_DIR=str(folder))

    assert (code, found["spool"]) == (1, False)
    assert f"the spool {folder}" in told.out
    assert "→ free disk space or repair it, or set HOLDFAST_SPOOL_DIR" in told.out
    assert told.err == ""
    assert cli.ok("status", HOLDFAST_SPOOL_DIR=str(folder))
