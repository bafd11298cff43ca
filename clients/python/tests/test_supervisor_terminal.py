"""The terminal of a command is given back as it was found, and nothing that is said is lost."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from clients.python.tests.supervised import (
    ENOUGH_SECONDS,
    HOLDFAST,
    IN_TERMINAL,
    Desk,
    desk,
    gone,
    recovered,
)

from tests.acceptance.serving import Api, name, ok
from tests.support.waiting import eventually

# A full-screen program: raw, on the other screen, without a cursor, with mouse and pasting told.
FULL_SCREEN = """
import os, signal, sys, termios, tty
if "own-group" in sys.argv:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
before = termios.tcgetattr(0)
if "plain" not in sys.argv:
    tty.setraw(0)
os.write(1, b"\\x1b[?1049h\\x1b[?25l\\x1b[?1000h\\x1b[?1006h\\x1b[?2004h\\x1b[2J")
os.write(1, b"\\x1b[5;5Hup %d up" % os.getpid())
while (key := os.read(0, 1)) != b"q":
    if key == b"x":
        os.write(1, b"working")
if "well" not in sys.argv:
    sys.exit(3)
os.write(1, b"\\x1b[?2004l\\x1b[?1006l\\x1b[?1000l\\x1b[?25h\\x1b[?1049l")
termios.tcsetattr(0, termios.TCSANOW, before)
"""


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


class Window:
    """A terminal, and a run at it."""

    def __init__(self, here: Desk, *options: str, how: tuple[str, ...] = ()) -> None:
        self.ours, self.theirs = pty.openpty()
        # Not as it usually is: that is what is to be there again afterwards.
        modes = termios.tcgetattr(self.theirs)
        modes[3] |= termios.NOFLSH
        modes[0] |= termios.IXANY
        termios.tcsetattr(self.theirs, termios.TCSANOW, modes)
        self.before = termios.tcgetattr(self.theirs)
        self.project = name("project")
        self.seen = b""
        command = [sys.executable, "-c", FULL_SCREEN, *how]
        run = [HOLDFAST, "run", "--project", self.project, *options, "--", *command]
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *run],
            cwd=here.folder,
            env={**here.environ(), "TERM": "xterm-256color"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
        )

    def until(self, words: bytes) -> None:
        while words not in self.seen:
            assert select.select([self.ours], [], [], ENOUGH_SECONDS)[0], self.seen
            self.seen += os.read(self.ours, 4096)

    def up(self) -> int:
        """The id of the program, once its screen is there."""
        self.until(b" up")
        return int(self.seen.partition(b"Hup ")[2].partition(b" ")[0])

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def modes(self) -> list[object]:
        return termios.tcgetattr(self.theirs)

    def end(self) -> int:
        code = self.process.wait(60)
        while select.select([self.ours], [], [], 0)[0]:
            self.seen += os.read(self.ours, 4096)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for end in (self.ours, self.theirs):
            with suppress(OSError):
                os.close(end)


@pytest.fixture
def windows() -> Iterator[list[Window]]:
    made: list[Window] = []
    yield made
    for window in made:
        window.close()


GIVEN_BACK = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?1006l", b"\x1b[?2004l")


@pytest.mark.parametrize("how", [(), ("own-group",)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_full_screen_program_that_is_killed_leaves_a_terminal_to_work_at(
    here: Desk, windows: list[Window], number: signal.Signals, how: tuple[str, ...]
) -> None:
    windows.append(window := Window(here, how=how))
    os.kill(window.up(), number)

    assert window.end() == 128 + number
    assert window.modes() == window.before
    after = window.seen.partition(b" up")[2]
    assert all(words in after for words in GIVEN_BACK)


def test_after_a_supervisor_that_is_killed_there_is_a_terminal_too(
    here: Desk, windows: list[Window]
) -> None:
    windows.append(window := Window(here, "--grace", "0.2", how=("deaf",)))
    pid = window.up()
    window.process.kill()
    gone(pid)

    eventually(lambda: window.modes() == window.before, "the modes")
    for words in GIVEN_BACK:
        window.until(words)


def test_a_program_that_gives_up_in_the_midst_of_it_does_too(
    here: Desk, windows: list[Window]
) -> None:
    windows.append(window := Window(here))
    window.up()
    window.type(b"q")

    assert window.end() == 3
    assert window.modes() == window.before
    assert all(words in window.seen.partition(b" up")[2] for words in GIVEN_BACK)


def test_a_program_that_ends_well_has_left_its_terminal_as_it_wanted(
    here: Desk, windows: list[Window]
) -> None:
    windows.append(window := Window(here, how=("well",)))
    window.up()
    window.type(b"q")

    assert window.end() == 0
    assert window.seen.count(b"\x1b[?1049l") == 1
    assert window.modes() == window.before


def test_the_next_attempt_finds_the_terminal_as_the_first_did(
    here: Desk, windows: list[Window]
) -> None:
    options = ("--restart", "on-failure", "--backoff", "0")
    windows.append(window := Window(here, *options, how=("own-group", "well")))
    os.kill(window.up(), signal.SIGKILL)
    window.until(b"\x1b[?1049l")
    window.seen = b""
    window.up()
    # What is typed reaches it: it has the terminal.
    window.type(b"x")
    window.until(b"working")
    window.type(b"q")

    assert window.end() == 0
    assert window.modes() == window.before


def test_ctrl_z_does_not_stop_what_nobody_would_wake_up(here: Desk, windows: list[Window]) -> None:
    """The first process of a window or a container: there is no shell above it."""
    windows.append(window := Window(here, how=("plain", "well")))
    pid = window.up()
    window.type(b"\x1a")
    window.type(b"x\n")
    window.until(b"working")
    os.kill(pid, signal.SIGTSTP)
    window.seen = b""
    window.type(b"x\n")
    window.until(b"working")
    window.type(b"q\n")

    assert window.end() == 0


def test_what_is_said_meanwhile_is_read_afterwards_and_in_a_file_until_then(
    here: Desk, windows: list[Window], api: Api, tmp_path: Path
) -> None:
    windows.append(window := Window(here, "--interval", "0.1"))
    window.up()
    [session] = ok(api.get("/api/sessions", params={"project_id": window.project}))["sessions"]
    heir = recovered(api, session["session_id"])["session_id"].encode()
    [file] = eventually(lambda: [*(tmp_path / "spool" / "runs").glob("*.log")], "the file")
    eventually(lambda: heir in file.read_bytes(), "the line")
    window.type(b"x")
    window.until(b"working")
    assert heir not in window.seen
    window.type(b"q")

    assert window.end() == 3
    after = window.seen.partition(b"\x1b[?1049l")[2]
    assert heir in after
    assert not file.exists()


def test_where_nobody_s_screen_is_spoilt_it_is_said_at_once(here: Desk, api: Api) -> None:
    run = here.run("--interval", "0.1")
    run.up()
    heir = recovered(api, run.session()["session_id"])["session_id"]
    # The session's own beat may say it first, or the instance's.
    assert heir in run.warned("the command goes on")
    run.say("0")
    run.end()


# In a terminal as people have it


class Tmux:
    """A terminal that can be asked what it shows."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(folder / "t"), "-f", "/dev/null"]
        self._environ = {k: v for k, v in environ.items() if k != "TMUX"}
        self(
            "new-session",
            "-d",
            "-c",
            str(folder),
            "-x",
            "100",
            "-y",
            "30",
            "bash --norc --noprofile",
        )

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            [*self._tmux, *arguments],
            env=self._environ,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def type(self, line: str) -> None:
        self("send-keys", "-l", line)
        self("send-keys", "Enter")

    def shown(self) -> str:
        return self("capture-pane", "-p")

    def state(self) -> str:
        """On the other screen? A cursor? Are movements of the mouse told?"""
        return self(
            "display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        ).strip()

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self("kill-server")


@pytest.fixture
def tmux(here: Desk) -> Iterator[Tmux]:
    if shutil.which("tmux") is None or shutil.which("bash") is None:
        pytest.skip("needs tmux and bash")
    it = Tmux(here.folder, here.environ())
    yield it
    it.close()


def test_in_a_terminal_of_people_s_all_is_as_before(here: Desk, tmux: Tmux) -> None:
    (here.folder / "tui.py").write_text(FULL_SCREEN)
    tmux.type("for n in 1 2 3 4 5 6 7 8 9; do echo line $n; done")
    tmux.type(f"{HOLDFAST} run --project tui -- {sys.executable} tui.py")
    eventually(lambda: tmux.state() == "1 0 1", "the program's screen")
    pid = int(tmux.shown().split("up ")[1].split()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: tmux.state() == "0 1 0", "the screen as it was")
    tmux.type("stty -a | tr ' ' '\\n' | grep -x -e icanon -e echo; echo ALL' 'IN 'ORDER'")
    shown = eventually(lambda: tmux.shown() if "ALL IN ORDER" in tmux.shown() else "", "the shell")

    lines = [line.strip() for line in shown.splitlines()]
    before = [f"line {number}" for number in range(1, 10)]
    assert [line for line in lines if line in {*before, "icanon", "echo"}][:9] == before
    assert {"icanon", "echo"} <= {*lines}


def test_ctrl_z_gives_the_shell_back_and_fg_the_command(here: Desk, tmux: Tmux) -> None:
    tmux.type(f"{HOLDFAST} run --project job -- cat")
    eventually(lambda: "session" in tmux.shown(), "the start")
    tmux.type("one")
    eventually(lambda: tmux.shown().count("one") == 2, "what it reads")
    tmux("send-keys", "C-z")
    eventually(lambda: "Stopped" in tmux.shown(), "the shell")
    tmux.type("fg")
    tmux.type("two")
    eventually(lambda: tmux.shown().count("two") == 2, "what it reads then")
    tmux("send-keys", "C-d")
    tmux.type("echo do'n'e $?")
    assert eventually(lambda: "done 0" in tmux.shown(), "its end")


def test_a_bad_end_of_a_plain_program_does_not_move_the_cursor(here: Desk, tmux: Tmux) -> None:
    """As it would where leaving the other screen puts back a cursor that was never saved."""
    tmux.type("for n in 1 2 3 4 5 6; do echo line $n; done")
    tmux.type(f"{HOLDFAST} run --project plain -- sh -c 'echo said; exit 3'")
    tmux.type("echo do'n'e")
    shown = eventually(lambda: tmux.shown() if "\ndone" in tmux.shown() else "", "the shell")
    lines = [line.strip() for line in shown.splitlines()]
    assert lines.index("line 6") < lines.index("said") < lines.index("done")
