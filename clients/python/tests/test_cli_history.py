"""Histories on the command line: what happened, what it came to, and what happens now."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Any

import pytest

from holdfast import Client
from holdfast.cli.service import head
from tests.support.commands import SECONDS, Cli
from tests.support.proxy import HttpWire


def agent(client: Client) -> str:
    """An instance with six events."""
    instance_id = client.instances.register("odin")["instance_id"]
    client.instances.emit(instance_id, "epic_started", {"epic_id": "e1"})
    client.instances.emit(instance_id, "test_passed", {"epic_id": "e1", "passed_count": 5})
    client.instances.emit(instance_id, "epic_completed", {"epic_id": "e1"})
    client.instances.checkpoint(instance_id, "half way", {"file": "parser.py"})
    client.instances.beat(instance_id, context_percent=40)
    return instance_id


def test_events_are_told_in_their_order_a_line_each(client: Client, cli: Cli) -> None:
    lines = cli.ok("events", agent(client)).splitlines()

    assert [line.split()[0] for line in lines] == [f"#{n}" for n in range(1, 7)]
    assert [line.split()[2] for line in lines[1:4]] == [
        "epic_started",
        "test_passed",
        "epic_completed",
    ]
    assert lines[2].endswith("epic_id=e1 passed_count=5")


def test_events_are_found_by_type_text_and_time(client: Client, cli: Cli) -> None:
    instance_id = agent(client)

    def numbers(*criteria: str) -> list[int]:
        found = cli.json("events", instance_id, *criteria)["events"]
        return [event["sequence_num"] for event in found]

    times = [event["timestamp"] for event in client.instances.events(instance_id)["events"]]
    assert numbers("--type", "epic_started", "--type", "epic_completed") == [2, 4]
    assert numbers("--keyword", "parser.py") == [5]
    assert numbers("--since", times[4]) == [5, 6]
    assert numbers("--until", times[1]) == [1, 2]
    assert numbers("--last", "2") == [5, 6]
    assert "The last 2 of 6 events. --all prints all." in cli.ok(
        "events", instance_id, "--last", "2"
    )
    assert cli("events", instance_id, "--since", "yesterday").code == 2


def test_the_events_of_a_long_history_are_all_there_with_all(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    for _ in range(3):
        beats = [{"instance_id": instance_id, "context_percent": n % 100} for n in range(500)]
        assert client.beat_all(beats)["accepted"] == 500

    page = cli.json("events", instance_id, "--all")

    assert [event["sequence_num"] for event in page["events"]] == [*range(1, 1_502)]
    assert (page["total_count"], page["has_more"]) == (1_501, False)
    assert len(cli.ok("events", instance_id, "--heartbeats").splitlines()) == 51


def test_heartbeats_in_a_row_are_one_line(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    client.beat_all([{"instance_id": instance_id, "context_percent": n} for n in range(60)])
    client.instances.emit(instance_id, "epic_started", {"epic_id": "e1"})
    client.instances.beat(instance_id)

    lines = cli.ok("events", instance_id, "--last", "3").splitlines()

    assert lines[0].startswith("#61  ")
    assert lines[0].endswith("instance_heartbeat  (60 since #2)  context_percent=59")
    assert [line.split()[0] for line in lines[1:3]] == ["#62", "#63"]
    assert lines[3] == "The last 62 of 63 events. --all prints all."


def test_any_history_is_found_by_what_a_person_calls_it(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    session = client.sessions.create("odin", "my/machine ü")["session_id"]
    client.claims.take("epic/7 ü", session_id=session)

    def stream(reference: str) -> str:
        return str(cli.json("events", reference)["events"][0]["stream_id"])

    for reference in (instance_id, instance_id[-6:], f"instance-{instance_id}"):
        assert stream(reference) == f"instance-{instance_id}"
    for reference in (session, session[:7], f"session-{session}"):
        assert stream(reference) == f"session-{session}"
    for reference in ("epic/7 ü", "claim-epic/7 ü"):
        assert stream(reference) == "claim-epic/7 ü"
    assert stream("my/machine ü") == "machine-my/machine ü"


def test_a_whole_id_goes_before_a_part_of_another(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take(session[:8], session_id=session)

    found = cli.json("events", session[:8])["events"]

    assert {event["stream_id"] for event in found} == {f"claim-{session[:8]}"}


@pytest.mark.parametrize("command", ["events", "replay", "resume"])
def test_what_may_mean_several_is_a_usage_error_and_what_means_nothing_is_not_found(
    client: Client, cli: Cli, command: str
) -> None:
    ids = [client.instances.register("odin")["instance_id"] for _ in range(2)]

    ambiguous, nothing = cli(command, "odin"), cli(command, "loki")

    assert (ambiguous.code, nothing.code) == (2, 4)
    assert ambiguous.err.startswith("holdfast: odin may be any of ")
    assert all(instance_id in ambiguous.err for instance_id in ids)
    assert cli(command, "odin", "--json").error()["code"] == "ambiguous"


def test_a_history_s_state_is_shown_at_any_point(client: Client, cli: Cli) -> None:
    instance_id = agent(client)

    lines = cli.ok("replay", instance_id, "--to", "2").splitlines()

    assert lines[0].startswith(f"instance-{instance_id} after event 2, epic_started at ")
    fields = dict(line.split(maxsplit=1) for line in lines[1:])
    assert fields["current_epic"] == "e1"
    assert "checkpoint.label" not in fields
    assert "checkpoint.label" in cli.ok("replay", instance_id)
    assert cli.json("replay", instance_id, "--to", "2")["final_state"]["current_epic"] == "e1"


def test_the_difference_of_two_points_is_shown(client: Client, cli: Cli) -> None:
    instance_id = agent(client)

    lines = cli.ok("replay", instance_id, "--diff", "2:5").splitlines()

    assert lines[0] == f"instance-{instance_id} from event 2 to 5"
    changed = dict(line.split(maxsplit=1) for line in lines[1:])
    assert changed["current_epic"] == "e1 → ∅"
    assert changed["checkpoint.label"] == "∅ → half way"
    diff = cli.json("replay", instance_id, "--diff", "2:5")["diff"]
    assert (diff["from"], diff["to"]) == (2, 5)
    assert diff["changed"]["current_epic"] == ["e1", None]


def test_a_history_is_walked_event_by_event(client: Client, cli: Cli) -> None:
    instance_id = agent(client)

    lines = cli.ok("replay", instance_id, "--each").splitlines()
    steps = cli.json("replay", instance_id, "--each")

    assert [line.split()[0] for line in lines if line.startswith("#")] == [
        f"#{n}" for n in range(1, 7)
    ]
    started = next(number for number, line in enumerate(lines) if line.startswith("#2"))
    assert "current_epic" in lines[started + 1]
    assert [[event["sequence_num"] for event in step["events"]] for step in steps] == [
        [1], [2], [3], [4], [5], [6],
    ]  # fmt: skip
    assert steps[0]["changed"]["project"] == [None, "odin"]
    assert steps[1]["changed"]["current_epic"] == [None, "e1"]
    assert steps[5]["changed"]["context_percent"] == [None, 40]
    part = cli.json("replay", instance_id, "--each", "--diff", "3:5")
    assert [step["events"][0]["sequence_num"] for step in part] == [4, 5]


def test_a_walk_is_told_as_it_goes(client: Client, cli: Cli, wire: HttpWire) -> None:
    """What is known already is there, though the rest can no longer be had."""
    instance_id = agent(client)
    wire.lose("request", "to_sequence_num=4", for_good=True)

    ended = Cli(wire.url, cli.environ["HOLDFAST_API_KEY"])("replay", instance_id, "--each")

    assert ended.code == 6
    assert [line.split()[0] for line in ended.out.splitlines() if line[0] == "#"] == [
        "#1", "#2", "#3",
    ]  # fmt: skip


def test_a_reader_of_a_walk_that_has_seen_enough_ends_it_quietly(client: Client, cli: Cli) -> None:
    instance_id = agent(client)
    for _ in range(20):
        client.instances.emit(instance_id, "epic_started", {"epic_id": "e" * 8_000})
    with cli.start("replay", instance_id, "--each") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("#1")
        process.stdout.close()
        assert process.stderr is not None
        complaints = process.stderr.read()

    assert process.wait(SECONDS) == 1
    assert complaints == ""


def test_people_are_not_shown_what_the_service_keeps_for_itself(client: Client, cli: Cli) -> None:
    """All of it is in the JSON."""
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("SD-7", session_id=session)
    instance_id = agent(client)

    told = [
        cli.ok("replay", reference, *how)
        for reference in (session, instance_id)
        for how in ([], ["--each"], ["--diff", "1:3"])
    ]
    for internal in ("@place", "_num ", "standing", "latest", "version"):
        assert not any(internal in text for text in told), internal
    assert all("held.SD-7" in text for text in told[:3])
    state = cli.json("replay", session)["final_state"]
    assert state["held"].keys() == {"@place/odin/laptop/", "SD-7"}
    assert len(cli.json("replay", session, "--each")) == 3
    assert {"standing", "epic_num"} < cli.json("replay", instance_id)["final_state"].keys()


def test_a_name_with_a_dot_is_quoted_in_a_state_as_in_a_difference(
    client: Client, cli: Cli
) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    client.instances.checkpoint(instance_id, "half way", {"a.b": {"": 1}, "c": {"d": 2}})

    state = cli.ok("replay", instance_id).split()
    difference = cli.ok("replay", instance_id, "--diff", "1:2").split()

    for path in ('checkpoint_state."a.b".""', "checkpoint_state.c.d"):
        assert path in state
        assert path in difference


def test_heartbeats_in_a_row_are_one_step_of_a_walk(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    client.beat_all([{"instance_id": instance_id, "context_percent": n} for n in range(10)])

    [_, step] = cli.json("replay", instance_id, "--each")
    steps = cli.json("replay", instance_id, "--each", "--heartbeats")

    assert [event["sequence_num"] for event in step["events"]] == [*range(2, 12)]
    assert step["changed"]["context_percent"] == [None, 9]
    assert len(steps) == 11
    assert steps[2]["changed"]["context_percent"] == [0, 1]


@pytest.mark.parametrize(
    "arguments",
    [["--to", "0"], ["--to", "7"], ["--diff", "1:9"], ["--diff", "12"], ["--diff", "a:b"],
     ["--diff", "1:2", "--to", "2"], ["--to", "x"], ["--each", "--to", "0"],
     ["--each", "--to", "7"], ["--each", "--diff", "2:9"], ["--each", "--diff", "4:2"]],
)  # fmt: skip
def test_a_point_that_the_history_does_not_have_is_a_usage_error(
    client: Client, cli: Cli, arguments: list[str]
) -> None:
    ended = cli("replay", agent(client), *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_the_newest_position_is_found(client: Client) -> None:
    """Whatever the number of events: ``watch`` begins there."""
    assert head(client) == 0
    instance_id = client.instances.register("odin")["instance_id"]
    for count in range(1, 20):
        assert head(client) == count
        client.instances.beat(instance_id)
    client.beat_all([{"instance_id": instance_id}] * 500)
    assert head(client) == 520


class Watching:
    """A running ``holdfast watch`` and the lines that it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: Queue[str] = Queue()
        self.err: Queue[str] = Queue()
        for stream, lines in ((process.stdout, self.out), (process.stderr, self.err)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    def event(self) -> Any:
        """The next event that it prints as JSON."""
        return json.loads(self.line(self.out))

    def line(self, lines: Queue[str]) -> str:
        """The next line of an output."""
        try:
            return lines.get(timeout=SECONDS)
        except Empty:
            raise AssertionError(f"it says nothing; complaints: {[*self.err.queue]}") from None

    def _read(self, stream: Any, lines: Queue[str]) -> None:
        for line in stream:
            lines.put(line)


@contextmanager
def watching(cli: Cli, *arguments: str) -> Iterator[Watching]:
    """``holdfast watch``, ended by Ctrl-C: with exit code 0 and nothing to complain of."""
    with cli.start("watch", *arguments) as process:
        try:
            seen = Watching(process)
            yield seen
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
            assert [*seen.err.queue] == []
        finally:
            process.kill()


def test_watch_tells_what_happens_until_ctrl_c(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    with watching(cli, "--after", "0", "--json") as watch:
        first = watch.event()
        client.instances.beat(instance_id)
        client.instances.emit(instance_id, "epic_started", {"epic_id": "e1"})
        second = watch.event()

    assert (first["event_type"], first["position"]) == ("instance_registered", 1)
    # Without the heartbeat between the two.
    assert (second["event_type"], second["position"]) == ("epic_started", 3)
    assert second == client.instances.events(instance_id)["events"][2]


def test_watch_begins_with_now_and_tells_of_heartbeats_on_demand(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    with watching(cli, "--heartbeats") as watch:
        # Until it looks nobody knows where its "now" is.
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(client, instance_id, stop))
        beating.start()
        line = watch.line(watch.out)
        stop.set()
        beating.join()

    assert line.split()[1:3] == [instance_id, "instance_heartbeat"]


def test_watch_tells_of_places_only_if_all_is_asked_for(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("SD-7", session_id=session)
    client.sessions.beat(session)
    client.sessions.complete(session)

    def types(*options: str) -> list[str]:
        found: list[dict[str, Any]] = []
        with watching(cli, "--after", "0", "--json", *options) as watch:
            while not found or found[-1]["event_type"] != "session_completed":
                found.append(watch.event())
        return [f"{e['event_type']} {e['event_data'].get('resource', '')}" for e in found]

    some, every = types(), types("--all")

    assert not any("@place" in line for line in some)
    assert some.count("claim_acquired SD-7") == some.count("claim_granted ") == 1
    assert "claim_acquired @place/odin/laptop/" in every
    assert every.count("claim_granted ") == 2
    assert "session_heartbeat " in every
    assert "session_heartbeat " not in some


def test_watch_tells_only_of_the_types_that_are_asked_for(client: Client, cli: Cli) -> None:
    instance_id = agent(client)
    types = ["--type", "instance_heartbeat", "--type", "epic_completed"]
    with watching(cli, "--after", "0", "--json", *types) as watch:
        seen = [watch.event()["event_type"] for _ in range(2)]

    assert seen == ["epic_completed", "instance_heartbeat"]
    assert instance_id


def test_watch_goes_on_where_it_was_when_the_service_is_back(
    client: Client, cli: Cli, wire: HttpWire
) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    through = Cli(wire.url, cli.environ["HOLDFAST_API_KEY"])
    with watching(through, "--after", "0", "--json") as watch:
        before = watch.event()
        wire.down()
        away = watch.line(watch.err)
        client.instances.emit(instance_id, "epic_started", {"epic_id": "e1"})
        client.instances.emit(instance_id, "epic_completed", {"epic_id": "e1"})
        wire.up()
        back = watch.line(watch.err)
        after = [watch.event()["position"] for _ in range(2)]

    assert away == "holdfast: The service is away. Waiting for it.\n"
    assert back == "holdfast: The service is back. Continuing after position 1.\n"
    assert [before["position"], *after] == [1, 2, 3]


@pytest.mark.parametrize("arguments", [[], ["--after", "7"]])
def test_watch_does_not_wait_for_a_service_that_was_never_there(
    cli: Cli, arguments: list[str]
) -> None:
    assert cli("watch", *arguments, HOLDFAST_URL="http://127.0.0.1:9").code == 6


def test_a_reader_that_has_seen_enough_ends_it_quietly(client: Client, cli: Cli) -> None:
    instance_id = client.instances.register("odin")["instance_id"]
    client.beat_all([{"instance_id": instance_id}] * 1_000)
    with cli.start("events", instance_id, "--all", "--heartbeats") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("#1")
        process.stdout.close()
        assert process.stderr is not None
        complaints = process.stderr.read()

    assert process.wait(SECONDS) == 1
    assert complaints == ""


def _beat(client: Client, instance_id: str, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        client.instances.beat(instance_id)
