"""A reply that is right but for one field: wherever it is wrong, it is told, and nothing breaks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import pytest
from clients.python.tests.conftest import Connect

from holdfast.exchange import Answer, Exchange
from holdfast.replies import fault_of, wrong
from holdfast.types import Health
from tests.acceptance.serving import Api
from tests.support.commands import Cli

Path = tuple["str | int", ...]

# All that a person looks around with.
COMMANDS = (
    ["instances", "--all"],
    ["topology"],
    ["next", "--all"],
    ["machines"],
    ["resume", "odin"],
)
ODD: Sequence[object] = (None, "yesterday", 10**300)


def places(value: object, path: Path = ()) -> Iterator[Path]:
    """All that is in it, the first of each list standing for all."""
    yield path
    if isinstance(value, dict):
        for name, one in value.items():
            yield from places(one, (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def with_odd(whole: Any, path: Path, odd: object) -> Any:
    """A copy that has this in that place."""
    if not path:
        return odd
    changed = copy.deepcopy(whole)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = odd
    return changed


@pytest.fixture
def crowd(connect: Connect, api: Api) -> None:
    """Something in every list."""
    client = connect()
    session = client.sessions.create("odin", "laptop")["session_id"]
    failed = client.sessions.create("odin", "tower")["session_id"]
    client.sessions.mark_failed(failed, "it broke")
    agent = client.instances.register("odin")["instance_id"]
    client.instances.checkpoint(agent, "half", {"a": 1})
    client.work_items.put("parser", title="Write it")
    client.work_items.put("lexer", depends_on=["parser"])
    client.claims.take("parser", session_id=session)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("crowd")
def test_no_field_breaks_a_command(
    cli: Cli, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Answer] = []
    asked: list[str] = []
    ask: Callable[..., Answer] = Exchange.ask

    def record(*args: Any, **options: Any) -> Answer:
        said.append(ask(*args, **options))
        asked.append(args[2])
        return said[-1]

    monkeypatch.setattr(Exchange, "ask", record)
    monkeypatch.setattr("holdfast.transport.FIRST_PAUSE_SECONDS", 0.0)
    cli.ok(*command)

    def again(*args: Any, **options: Any) -> Answer:
        number = next(turns) % len(said)
        return odd if number == spoilt else said[number]

    monkeypatch.setattr(Exchange, "ask", again)
    for spoilt, answer in enumerate(said):
        whole = json.loads(answer.content)
        for path in places(whole):
            for value in ODD:
                body = with_odd(whole, path, value)
                # What is refused is refused in one way: test_something_else.py.
                if fault_of("GET", asked[spoilt], body) is None:
                    odd = answer._replace(content=json.dumps(body).encode())
                    turns = iter(range(1_000))
                    # A traceback is raised here.
                    assert cli(*command).code == 0, (path, value)


MOMENT = "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "odd", ["yesterday", "", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
@pytest.mark.usefixtures("crowd")
def test_a_moment_that_is_none_is_an_outage(
    cli: Cli, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask: Callable[..., Answer] = Exchange.ask
    assert wrong({"status": "ok", "timestamp": MOMENT}, Health, "the reply") is None

    def spoil(*args: Any, **options: Any) -> Answer:
        answer = ask(*args, **options)
        body = json.loads(answer.content)
        for session in body.get("sessions", []):
            session["updated_at"] = session["last_heartbeat"] = odd
        return answer._replace(content=json.dumps(body).encode())

    monkeypatch.setattr(Exchange, "ask", spoil)
    ended = cli("status")

    assert ended.code == 6
    assert "last_heartbeat is no moment" in ended.err


@pytest.mark.parametrize("odd", [{}, {"changed": {"a": 5}}, {"changed": [], "from": None}])
@pytest.mark.usefixtures("crowd")
def test_a_state_may_be_any_object(cli: Cli, odd: object, monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Callable[..., Answer] = Exchange.ask

    def spoil(*args: Any, **options: Any) -> Answer:
        answer = ask(*args, **options)
        body = json.loads(answer.content)
        body.update({name: odd for name in ("final_state", "diff") if name in body})
        return answer._replace(content=json.dumps(body).encode())

    monkeypatch.setattr(Exchange, "ask", spoil)
    for options in ([], ["--diff", "1:2"], ["--each"]):
        assert cli("replay", "odin", *options).code == 0


def test_a_number_that_cannot_be_reckoned_with_is_an_outage() -> None:
    for number in (10**300, -(10**300), 1 << 63):
        assert wrong({"active": number}, Numbers, "it") == "active is not what it should be"
    assert wrong({"active": (1 << 63) - 1}, Numbers, "it") is None


class Numbers(TypedDict):
    """A count."""

    active: float
