"""``holdfast run`` as a process of its own, and commands that do as they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.process import living
from tests.acceptance.serving import Api, Json, name, ok
from tests.support.waiting import eventually

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
ENOUGH_SECONDS = 120.0
LONGEST_SECONDS = 180.0

# Says that it is up, then does what it reads: a number is an exit code, SIG… ends it by a signal.
WORKER = """
import os, signal, sys
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    word = line.strip()
    if word.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, word))
    elif word.isdigit():
        sys.exit(int(word))
    else:
        print(os.environ.get(word, ""), flush=True)
"""

# Ctrl-C throws away what waits to be read on the terminal, and with it perhaps the answer to it.
IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
modes = termios.tcgetattr(0)
modes[3] |= termios.NOFLSH
termios.tcsetattr(0, termios.TCSANOW, modes)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Run:
    """A supervisor, the pipes of its command, and what is on record of it."""

    def __init__(self, process: subprocess.Popen[str], api: Api, project: str) -> None:
        self.process = process
        self.project = project
        self._api = api
        self.told = ""
        self.printed = ""

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def line(self) -> str:
        """The next line that the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def up(self) -> int:
        """The command's process id, once it is up."""
        word, _, pid = self.line().partition(" ")
        assert word == "up", self.end()
        return int(pid)

    def say(self, word: str) -> None:
        """A line for the command."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def ask(self, variable: str) -> str:
        """What the command's environment says."""
        self.say(variable)
        return self.line()

    def warned(self, words: str) -> str:
        """The first line on stderr from here on that has these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told += line
            if words in line:
                return line
        raise AssertionError(f"{words!r} was never said, but: {self.told}")

    def end(self) -> int:
        """The supervisor's exit code; ``told`` is what it said, ``printed`` what the command did.

        Stdin stays open.
        """
        stdin, self.process.stdin = self.process.stdin, None
        printed, told = self.process.communicate(timeout=ENOUGH_SECONDS)
        self.printed += printed or ""
        self.process.stdin = stdin
        self.told += told or ""
        return self.process.returncode

    def session(self) -> Json:
        """The only session of the project."""
        return self._only("sessions", project_id=self.project)

    def instance(self) -> Json:
        """The only instance of the project."""
        return self._only("instances", project=self.project)

    def instances(self) -> list[Json]:
        """All instances of the project, the oldest first."""
        found = ok(self._api.get("/api/instances", params={"project": self.project}))["instances"]
        return sorted(found, key=lambda instance: str(instance["created_at"]))

    def events(self, event_type: str) -> list[Json]:
        """The instance's events of a type."""
        path = f"/api/instances/{self.instance()['instance_id']}/events"
        events: list[Json] = ok(self._api.get(path, params={"event_type": event_type}))["events"]
        return events

    def _only(self, kind: str, **query: str) -> Json:
        found = ok(self._api.get(f"/api/{kind}", params=query))[kind]
        assert len(found) == 1, found
        one: Json = found[0]
        return one


class Desk:
    """Starts supervised commands in a folder, with an address of the service."""

    def __init__(self, api: Api, folder: Path, url: str | None = None) -> None:
        self.api = api
        self.url = url or str(api.base_url).rstrip("/")
        self.folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        # Whoever waits for a line in vain is to fail, not to wait for ever.
        self._ends: list[threading.Timer] = []

    def run(
        self,
        *options: str,
        command: tuple[str, ...] = (sys.executable, "-c", WORKER),
        project: str | None = None,
        **popen: object,
    ) -> Run:
        """``holdfast run OPTIONS -- COMMAND`` in a project of its own unless told otherwise."""
        project = project or name("project")
        return self.carry_on(project, "--project", project, *options, command=command, **popen)

    def carry_on(
        self,
        project: str,
        *options: str,
        command: tuple[str, ...] = (sys.executable, "-c", WORKER),
        **popen: object,
    ) -> Run:
        """``holdfast run OPTIONS -- COMMAND`` where the options themselves lead to the project."""
        process = subprocess.Popen(
            [HOLDFAST, "run", *options, "--", *command],
            cwd=self.folder,
            **{
                "env": self.environ(),
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **popen,
            },  # type: ignore[call-overload]
        )
        self._processes.append(process)
        self._ends.append(threading.Timer(LONGEST_SECONDS, process.kill))
        self._ends[-1].start()
        return Run(process, self.api, project)

    def environ(self) -> dict[str, str]:
        """As it is where the supervisor runs."""
        assert self.api.key is not None
        return {**os.environ, "HOLDFAST_URL": self.url, "HOLDFAST_API_KEY": self.api.key}

    def close(self) -> None:
        """End what a test left running."""
        for end in self._ends:
            end.cancel()
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@contextmanager
def desk(api: Api, folder: Path, url: str | None = None) -> Iterator[Desk]:
    """A place at which commands are supervised."""
    folder.mkdir(exist_ok=True)
    it = Desk(api, folder, url)
    try:
        yield it
    finally:
        it.close()


@contextmanager
def ended_in_time(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kills a process with which a test takes too long: whoever reads from it fails then."""
    end = threading.Timer(LONGEST_SECONDS, process.kill)
    end.start()
    try:
        yield
    finally:
        end.cancel()
        process.kill()
        process.wait()


def recovered(api: Api, session_id: str) -> Json:
    """The successor of a session that still beats: a beat may always come before the recovery."""

    def recover() -> Json:
        api.stall(session_id)
        reply = api.recover(session_id, "desktop")
        return ok(reply, 201) if reply.status_code == 201 else {}

    return eventually(recover, "the recovery")


def gone(pid: int) -> None:
    """Wait until this process is no more."""
    eventually(lambda: pid not in living(), f"the end of process {pid}")
