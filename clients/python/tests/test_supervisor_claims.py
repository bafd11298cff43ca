"""``holdfast run --claim``: no command without its claim, and what happens when it is lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, Run, desk, gone, recovered

from holdfast import Client
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Json, Server, cloned, name, ok, refused
from tests.support.proxy import http_wire
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose commands beat often."""
    with desk(api, tmp_path / "work") as it:
        yield it


@pytest.fixture(scope="module")
def impatient(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service by which a claim can be taken over after less than a second."""
    settings = {
        "STALL_THRESHOLD_MS": "400",
        "INSTANCE_STALE_SECONDS": "0.4",
        "CLAIM_STALE_SECONDS": "0.8",
    }
    directory = tmp_path_factory.mktemp("impatient")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


@pytest.fixture
def hasty(impatient: Server, tmp_path: Path) -> Iterator[Desk]:
    """A desk at the impatient service."""
    with impatient.world() as api, desk(api, tmp_path / "work") as it:
        yield it


def claim(api: Api, item: str) -> Json:
    """The claim as it is."""
    return ok(api.get(f"/api/claims/{item}"))


def take_over(
    api: Api, run: Run, item: str, before_it_goes_on: Callable[[], None] = lambda: None
) -> Json:
    """Take the item from a run whose supervisor is stopped for a while."""
    run.process.send_signal(signal.SIGSTOP)
    other = api.session()
    body = {"item_id": item, "session_id": other["session_id"], "takeover": True}

    def take() -> bool:
        api.beat(other["session_id"])
        return api.post("/api/claims", json=body).status_code == 201

    eventually(take, "the takeover")
    before_it_goes_on()
    run.process.send_signal(signal.SIGCONT)
    return other


def test_the_item_is_held_while_the_command_runs_and_free_afterwards(here: Desk) -> None:
    item = name("item")
    run = here.run("--claim", item)
    run.up()

    held = claim(here.api, item)
    assert held["session_id"] == run.session()["session_id"]
    assert held["codebase"] == str(here.folder)
    assert run.ask("HOLDFAST_ITEM") == item
    assert run.ask("HOLDFAST_FENCE") == str(held["fence"])
    run.say("0")
    assert run.end() == 0
    assert claim(here.api, item)["holder"] is None
    assert ok(here.api.get(f"/api/work-items/{item}"))["status"] == "open"


@pytest.mark.parametrize(("code", "status"), [("0", "completed"), ("1", "open")])
def test_complete_completes_the_item_of_a_command_that_ended_well(
    here: Desk, code: str, status: str
) -> None:
    item = name("item")
    run = here.run("--claim", item, "--complete")
    run.up()
    run.say(code)

    assert run.end() == int(code)
    assert ok(here.api.get(f"/api/work-items/{item}"))["status"] == status


def test_what_another_holds_is_not_started_and_it_is_told_who_has_it(here: Desk) -> None:
    """S3 FR-2: the owner, and exit code 3. On the same machine, in the same project."""
    item = name("item")
    first = here.run("--claim", item)
    first.up()
    second = here.run("--claim", item, project=first.project)

    assert second.end() == 3
    assert second.printed == ""
    session = first.session()
    for part in (session["session_id"], session["hostname"], session["codebase"], "Heartbeat"):
        assert part in second.told
    assert claim(here.api, item)["holder"] == session["session_id"]
    assert first.instance()["status"] == "active"
    first.say("0")
    first.end()


def test_replace_gets_what_the_session_in_its_place_holds(here: Desk) -> None:
    """The old one goes first, then the item is claimed; without --replace it is told how."""
    item = name("item")
    first = here.run("--claim", item, "--interval", "0.1")
    first.up()
    replaced = first.session()["session_id"]
    refused = here.run("--claim", item, project=first.project)
    assert refused.end() == 3
    assert "--replace" in refused.told

    second = here.run("--claim", item, "--replace", project=first.project)
    second.up()

    session_id = second.ask("HOLDFAST_SESSION_ID")
    assert claim(here.api, item)["holder"] == session_id != replaced
    assert here.api.get_session(replaced)["status"] == "failed"
    for run in (second, first):
        run.say("0")
        assert run.end() == 0
    assert here.api.get_session(session_id)["status"] == "completed"


def test_replace_does_not_get_what_is_held_in_another_place(here: Desk) -> None:
    item = name("item")
    first = here.run("--claim", item)
    first.up()
    here_too = here.run("--slot", "1", project=first.project)
    here_too.up()
    run = here.run("--slot", "1", "--claim", item, "--replace", project=first.project)

    assert run.end() == 3
    assert "--replace takes" not in run.told
    assert claim(here.api, item)["holder"] == first.ask("HOLDFAST_SESSION_ID")
    replaceable = here_too.ask("HOLDFAST_SESSION_ID")
    assert here.api.get_session(replaceable)["status"] == "active"
    for left in (first, here_too):
        left.say("0")
        assert left.end() == 0


def test_a_stalled_session_s_place_is_taken_with_what_it_holds(here: Desk) -> None:
    item = name("item")
    first = here.run("--claim", item, "--interval", "30")
    first.up()
    stalled = first.session()["session_id"]
    here.api.stall(stalled)

    second = here.run("--claim", item, project=first.project)
    second.up()

    assert claim(here.api, item)["holder"] == second.ask("HOLDFAST_SESSION_ID") != stalled
    for run in (second, first):
        run.say("0")
        assert run.end() == 0


def test_an_item_that_cannot_be_claimed_leaves_no_session_behind(here: Desk) -> None:
    first, second = name("first"), name("second")
    ok(here.api.post("/api/work-items", json={"item_id": first}), 201)
    waits = {"item_id": second, "depends_on": [first]}
    ok(here.api.post("/api/work-items", json=waits), 201)
    run = here.run("--claim", second)

    assert run.end() == 3
    assert run.printed == ""
    assert first in run.told
    assert ok(here.api.get("/api/sessions"))["sessions"] == []
    assert run.instance()["status"] == "closed"


def test_a_failed_run_s_item_is_remembered_for_the_recovery(here: Desk) -> None:
    item = name("item")
    run = here.run("--claim", item)
    run.up()
    run.say("1")
    run.end()
    assert claim(here.api, item)["holder"] is None
    successor = ok(here.api.recover(run.session()["session_id"], name("desktop")), 201)

    assert claim(here.api, item)["holder"] == successor["session_id"]


def test_a_recovery_elsewhere_stops_the_command_that_is_to_stop_if_fenced(here: Desk) -> None:
    item = name("item")
    run = here.run("--claim", item, "--stop-if-fenced", "--interval", "0.1")
    pid = run.up()
    session_id = run.session()["session_id"]
    heir = recovered(here.api, session_id)

    assert run.end() == 128 + signal.SIGTERM
    gone(pid)
    assert heir["session_id"] in run.told
    assert claim(here.api, item)["holder"] == heir["session_id"]
    assert here.api.get_session(session_id)["outcome"] == "recovered"


def test_a_takeover_stops_the_command_and_what_it_started(hasty: Desk) -> None:
    item = name("item")
    waiting = (
        "import os, subprocess, sys\n"
        "helper = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print('up', os.getpid(), flush=True); print(helper.pid, flush=True); input()"
    )
    run = hasty.run(
        *("--claim", item, "--stop-if-fenced", "--interval", "0.1"),
        command=(sys.executable, "-c", waiting),
    )
    pid, helper = run.up(), int(run.line())
    other = take_over(hasty.api, run, item)

    assert run.end() == 128 + signal.SIGTERM
    gone(pid)
    gone(helper)
    assert f"{item} was taken over by {other['session_id']}" in run.told
    assert claim(hasty.api, item)["holder"] == other["session_id"]


def test_a_command_that_ignores_the_request_is_killed_when_it_is_fenced(hasty: Desk) -> None:
    item = name("item")
    deaf = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', os.getpid(), flush=True); input()"
    )
    run = hasty.run(
        *("--claim", item, "--stop-if-fenced", "--interval", "0.1", "--grace", "0.2"),
        command=(sys.executable, "-c", deaf),
    )
    run.up()
    take_over(hasty.api, run, item)

    assert run.end() == 128 + signal.SIGKILL


def test_without_stop_if_fenced_there_is_one_warning_and_the_command_goes_on(hasty: Desk) -> None:
    item = name("item")
    run = hasty.run("--claim", item, "--interval", "0.1", "--complete")
    run.up()
    other = take_over(hasty.api, run, item)
    run.warned("was taken over")
    assert run.ask("HOLDFAST_ITEM") == item
    beaten = run.session()["last_heartbeat"]
    eventually(lambda: run.session()["last_heartbeat"] > beaten, "another heartbeat")
    run.say("0")

    assert run.end() == 0
    assert [item in line for line in run.told.splitlines()].count(True) == 1
    assert claim(hasty.api, item)["holder"] == other["session_id"]
    assert run.session()["status"] == "completed"


def test_a_command_that_lost_its_claim_is_not_started_again(hasty: Desk) -> None:
    item = name("item")
    run = hasty.run(*("--claim", item, "--interval", "0.1", "--restart", "always"))
    run.up()
    take_over(hasty.api, run, item)
    run.warned("was taken over")
    run.say("1")

    assert run.end() == 1
    assert len(run.events("command_logged")) == 1


def test_a_takeover_is_noticed_though_the_reply_that_told_of_it_was_lost(
    impatient: Server, tmp_path: Path
) -> None:
    """The service tells once; after a heartbeat that failed, or an absence, the fence tells."""
    with (
        impatient.world() as api,
        http_wire(impatient.url) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        item = name("item")
        run = here.run("--claim", item, "--stop-if-fenced", "--interval", "0.2")
        run.up()
        session_id = run.session()["session_id"]
        take_over(api, run, item, lambda: wire.lose("reply", f"{session_id}/heartbeat"))

        assert run.end() == 128 + signal.SIGTERM
        assert "was taken over" in run.told


def test_takeover_claims_from_a_holder_that_went_silent(hasty: Desk) -> None:
    item = name("item")
    silent = hasty.api.session()
    body = {"item_id": item, "session_id": silent["session_id"]}
    ok(hasty.api.post("/api/claims", json=body), 201)
    eventually(lambda: claim(hasty.api, item)["stale"], "the claim to be stale")
    refusing = hasty.run("--claim", item)
    assert refusing.end() == 3
    assert "--takeover" in refusing.told

    run = hasty.run("--claim", item, "--takeover", "--interval", "0.1")
    run.up()
    assert claim(hasty.api, item)["holder"] == run.session()["session_id"]
    run.say("0")
    assert run.end() == 0


def test_without_the_service_a_claimed_command_is_not_started(api: Api, tmp_path: Path) -> None:
    """Exclusive ownership that nobody granted is none: exit code 6, and nothing is kept."""
    with http_wire(str(api.base_url)) as wire:
        wire.down()
        with desk(api, tmp_path / "work", wire.url) as here:
            run = here.run("--claim", name("item"))
            assert run.end() == 6
            assert run.printed == ""
            assert wire.url in run.told
            assert "goes on" not in run.told
        with Client(wire.url, api.key) as client:
            assert client.spool.stats().kept == 0
    assert ok(api.get("/api/instances"))["instances"] == []


def test_with_a_key_that_the_service_does_not_know_a_claimed_command_is_not_started(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.api, "key", "nobody-s")
    run = here.run("--claim", name("item"))

    assert run.end() == 5
    assert run.printed == ""
    assert "HOLDFAST_API_KEY" in run.told


def test_what_is_kept_from_before_does_not_say_that_the_work_goes_on(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.api, "key", "nobody-s")
    with Client(here.url, "nobody-s", lenient=True) as before:
        before.instances.register("odin")
    run = here.run("--claim", name("item"))

    assert run.end() == 5
    kept, refused = run.told.splitlines()
    assert kept.startswith("holdfast: 1 write still not sent: Invalid API key")
    assert refused.startswith("holdfast: Invalid API key: set HOLDFAST_API_KEY")


def test_a_claim_is_decided_after_what_the_last_holder_has_kept(api: Api, tmp_path: Path) -> None:
    """The holder has ended; only its report still waits."""
    item = name("item")
    with http_wire(str(api.base_url)) as wire, desk(api, tmp_path / "work", wire.url) as here:
        first = here.run("--claim", item)
        first.up()
        wire.down()
        first.say("5")
        assert first.end() == 5
        wire.up()
        second = here.run("--claim", item)
        second.up()
        assert claim(api, item)["holder"] == second.session()["session_id"]
        second.say("0")
        assert second.end() == 0


def test_a_stale_fence_is_what_a_guard_of_the_command_sees(hasty: Desk) -> None:
    """HOLDFAST_FENCE is good for ``verify``: refused once the item has moved on."""
    item = name("item")
    run = hasty.run("--claim", item, "--interval", "0.1")
    run.up()
    fence = int(run.ask("HOLDFAST_FENCE"))
    verify = f"/api/claims/{item}/verify"
    assert ok(hasty.api.post(verify, json={"fence": fence}))["valid"]
    take_over(hasty.api, run, item)

    refused(hasty.api.post(verify, json={"fence": fence}), 409, "stale_fence")
