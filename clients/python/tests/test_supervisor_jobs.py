"""A run that is a job of a shell's, in its background: the terminal is the shell's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST, Desk, desk
from clients.python.tests.test_supervisor_terminal import Tmux
from clients.python.tests.test_supervisor_terminal import tmux as tmux

from tests.acceptance.serving import Api, ok
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


@pytest.mark.parametrize("end", ["kill %1", "bg; rm here", "kill -9 %1"])
def test_who_ends_in_the_background_leaves_the_terminal_to_the_shell(
    here: Desk, tmux: Tmux, end: str
) -> None:
    (here.folder / "here").touch()
    work = "touch begun; while test -e here; do sleep 0.1; done"
    tmux.type(f"{HOLDFAST} run --project job -- sh -c '{work}'")
    eventually((here.folder / "begun").exists, "the command")
    tmux("send-keys", "C-z")
    eventually(lambda: "Stopped" in tmux.shown(), "the shell")
    tmux.type(end)
    if "-9" not in end:
        eventually(
            lambda: all(
                session["status"] != "active"
                for session in ok(here.api.get("/api/sessions", params={"project_id": "job"}))[
                    "sessions"
                ]
            ),
            "its end",
        )
    tmux.type("wait; echo do'n'e; cat")
    eventually(lambda: "\ndone" in tmux.shown(), "the shell's answer")
    tmux.type("echoed")
    eventually(lambda: tmux.shown().count("echoed") == 2, "who reads from the terminal")
