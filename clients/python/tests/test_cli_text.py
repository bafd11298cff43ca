"""What agents wrote is shown as it is, and steers nothing: no terminal, no markup, no layout."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Client
from holdfast.cli.text import dumped, safe
from tests.support.commands import Cli

STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# A title bar, a colour, a cleared screen, a bell, 8-bit CSI, a text turned round, markup of rich.
EVIL = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b31m\u202egnp.exe\u2028[bold]not bold[/bold] :boom:"
SPELLED = (
    r"\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b31m\u202egnp.exe\u2028[bold]not bold[/bold] :boom:"
)
TEXTS = st.text(st.characters() | st.sampled_from("\x1b\x9b\x07\r\n\t\u202e\u2028\u200d\U000e0041"))


def steering(text: str) -> set[str]:
    """The characters in it that a terminal might obey; what joins emoji is harmless."""
    return {c for c in text if unicodedata.category(c) in STEERING} - {"\u200d"}


@given(TEXTS)
def test_no_text_can_steer_a_terminal(text: str) -> None:
    assert steering(safe(text)) == set()


@given(TEXTS)
def test_json_stays_the_same_json_and_steers_nothing(text: str) -> None:
    value = {text: [text, 1, None, {"deep": text}]}

    assert steering(dumped(value)) <= {"\n"}
    assert json.loads(dumped(value)) == value
    assert "\n" not in dumped(value, indent=None)


@pytest.mark.parametrize(
    "text", ["Grüße, 世界", "👩‍👩‍👧 🇩🇪 ✓", "naïve – “quoted” […]", "עברית عربي"]
)
def test_the_world_s_letters_are_left_alone(text: str) -> None:
    assert safe(text) == text
    assert text in dumped({"title": text})


def test_escapes_of_an_agent_are_spelled_out_wherever_they_are_shown(
    client: Client, cli: Cli
) -> None:
    agent = client.instances.register("odin", name=EVIL, hostname=EVIL)["instance_id"]
    session = client.sessions.create("odin", "laptop", hostname=EVIL)["session_id"]
    client.instances.beat(agent, activity="waiting_for_human", activity_reason=EVIL)
    client.instances.emit(agent, "epic_started", {"epic_id": EVIL, "more": {"deep": EVIL}})
    client.instances.checkpoint(agent, EVIL, {"file": EVIL})
    client.work_items.put("A", title=EVIL, track=EVIL)
    client.claims.take("A", session_id=session, tty=EVIL)
    commands = [
        ["status"],
        ["instances"],
        ["topology"],
        ["next"],
        ["claim", "A", "--instance", agent],
        ["events", agent],
        ["events", "A"],
        ["replay", agent],
        ["replay", agent, "--each"],
        ["replay", "A", "--diff", "1:2"],
        ["resume", agent],
    ]

    for command in commands:
        plain, as_json = cli(*command), cli(*command, "--json")
        assert steering(plain.out + plain.err) == {"\n"}, command
        # Within JSON an escape has another spelling.
        assert "b]0;owned" in plain.out + plain.err, command
        assert "[bold]not bold[/bold] :boom:" in plain.out + plain.err, command
        assert steering(as_json.out + as_json.err) == {"\n"}, command


def test_a_terminal_gets_no_escape_but_our_own(client: Client, cli: Cli) -> None:
    client.work_items.put("A", title=EVIL)

    shown = cli.at_terminal("next", columns=200).out

    assert r"\x1b]0;owned\x07" in shown
    assert "[bold]not bold[/bold] :boom:" in shown
    assert not {"\x07", "\x9b", "\u202e", "\u2028"} & set(shown)
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown


def test_an_error_of_the_service_is_spelled_out_too(cli: Cli) -> None:
    ended = cli("events", f"session-{EVIL}")

    assert ended.code == 4
    assert SPELLED in ended.err
    assert steering(ended.err) == {"\n"}
