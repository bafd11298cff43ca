"""Starts what is supervised, and sees to it that nothing of it outlives its supervisor.

A supervisor that is killed (``kill -9``, out of memory) can do nothing any more. So this small
process stands between the two: it starts the command, whose orphans become its children (Linux),
and when its socket to the supervisor breaks it stops all of them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from holdfast.process import LOOK_SECONDS, Tree, adopt_orphans, brand, is_job, living, stop
from holdfast.terminal import Terminal

OVER = "over"
JOB, NO_JOB = "job", "no-job"
END_SECONDS = 5.0
LOOKS_FOR_ORPHAN = 10
# Isolated: neither the folder in which one happens to be nor PYTHONPATH decides what is imported.
START = "import sys; sys.path.insert(0, sys.argv[1]); from holdfast.guardian import main; main()"
# What the terminal, a shell or a person sends to whoever belongs to the run.
NOT_FOR_IT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Guardian:
    """The supervisor's side. For a ``with`` block. Raises ``OSError``.

    ``mark``: what stands in the environment of all that belongs to the run. ``blocked``: the
    signals that the command is to have blocked, whichever this process waits for meanwhile.
    """

    def __init__(self, grace: float, mark: str, blocked: Iterable[int]) -> None:
        job = JOB if is_job() else NO_JOB
        self._arguments = [str(grace), mark, job, ",".join(map(str, blocked))]

    def __enter__(self) -> Guardian:
        self._begin()
        return self

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        # It inherits all files that the command is to inherit, and this end of the socket.
        theirs.set_inheritable(True)
        folder = str(Path(__file__).parents[1])
        start = [sys.executable, "-I", "-S", "-c", START, folder]
        with theirs:
            self._process = subprocess.Popen(
                [*start, str(theirs.fileno()), *self._arguments], close_fds=False
            )
        self.pid = self._process.pid
        self._socket = ours
        self._replies: IO[bytes] = ours.makefile("rb")

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._say({OVER: True})
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._socket.close()

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """The process id of the command. Raises ``OSError`` if it could not be started."""
        if self._process.poll() is not None:
            # It was killed; its supervisor has done without it since.
            self._end()
            self._begin()
        environ = {_sent(name): _sent(value) for name, value in environ.items()}
        self._say({"command": [_sent(argument) for argument in command], "environ": environ})
        reply = self._heard()
        if "pid" in reply:
            return int(reply["pid"])
        raise OSError(reply.get("errno", 0), reply.get("strerror", "its guardian was killed"))

    def wait(self, pid: int) -> int:
        """The return code of the command, once it has ended (as ``subprocess`` tells it)."""
        while reply := self._heard():
            if reply.get("exited") == pid:
                return int(reply["returncode"])
        # The guardian was killed. Where orphans are adopted, the command is soon this one's child.
        missing = 0
        while missing < LOOKS_FOR_ORPHAN:
            try:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:
                missing = 0 if pid in living() else missing + 1
                time.sleep(LOOK_SECONDS)
        return 1

    def _say(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _heard(self) -> dict[str, Any]:
        """The next message; nothing if there will be none."""
        try:
            line = self._replies.readline()
        except (OSError, ValueError):
            return {}
        return json.loads(line) if line else {}


def _sent(text: str) -> str:
    """The system's own bytes, each as a letter: the two need not agree how to read them."""
    return os.fsencode(text).decode("latin-1")


def _received(text: str) -> bytes:
    return text.encode("latin-1")


class _Keeper:
    """The guardian's own side: parent of the command and of all who lost their parents."""

    def __init__(
        self, control: socket.socket, mark: str, is_job: bool, blocked: Iterable[int]
    ) -> None:
        self._is_job = is_job
        self._control = control
        self._mark = mark
        self._group = os.getpgrp()
        self._terminal = Terminal()
        # What ends the whole process group at once must not end the one who is to tidy up.
        with suppress(OSError):
            os.setpgid(0, 0)
        adopt_orphans()
        for number in NOT_FOR_IT:
            # Not ignored, as the command would ignore it too, unless that is how it has to be.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _heeded_by_others)
        # Until here its supervisor's mask kept off what would have ended it.
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _heeded_by_others)
        self.tree = Tree(0, mark, keeper=os.getpid())
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> bool:
        """Whether the supervisor said that the run is over; if not, it is no more."""
        pending = b""
        while True:
            ready, _, _ = select.select([self._control, self._woken], [], [])
            if self._woken in ready:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._bury()
            if self._control in ready:
                try:
                    received = self._control.recv(1 << 16)
                except OSError:
                    received = b""
                if not received:
                    return False
                pending += received
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if OVER in message:
                        return True
                    self._start(message["command"], message["environ"])

    def end_all(self, grace: float) -> None:
        """Its supervisor is no more: nothing of the run goes on."""
        stop(self.tree, grace)
        self._terminal.restore_for_others()

    def _start(self, command: list[str], environ: dict[str, str]) -> None:
        try:
            self._process = subprocess.Popen(
                [_received(argument) for argument in command],
                env={_received(name): _received(value) for name, value in environ.items()},
                close_fds=False,
                preexec_fn=self._join,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as e:
            number, text = getattr(e, "errno", None), getattr(e, "strerror", None)
            self._tell({"errno": number or 0, "strerror": text or str(e)})
            return
        self.tree = Tree(self._process.pid, self._mark, keeper=os.getpid())
        self._tell({"pid": self._process.pid})

    def _join(self) -> None:
        """In the command, before it begins: back to the supervisor's process group."""
        brand(self._mark)
        with suppress(OSError):
            os.setpgid(0, self._group)

    def _bury(self) -> None:
        """All who ended: the command, and those who had become this one's children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._wake_up(pid, os.WSTOPSIG(status))
            elif self._process is not None and pid == self._process.pid:
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code
                self._process = None
                self._tell({"exited": pid, "returncode": code})

    def _wake_up(self, pid: int, number: int) -> None:
        """Ctrl-Z where no shell is: without this process in between it would not stop anything."""
        is_command = self._process is not None and pid == self._process.pid
        if is_command and number == signal.SIGTSTP and not self._is_job:
            with suppress(OSError):
                os.killpg(self._group, signal.SIGCONT)

    def _tell(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _heeded_by_others(*_: object) -> None:
    """It goes when its supervisor has gone, not before."""


def main() -> None:
    """Serve the supervisor until its end. The arguments: a socket, the grace in seconds, the mark
    of the run as it stands in the environment of what belongs to it, whether it is a shell's job,
    and which signals it is to block.
    """
    descriptor, grace, mark, job = int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:6]
    blocked = [int(number) for number in sys.argv[6].split(",") if number]
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    keeper = _Keeper(control, mark, job == JOB, blocked)
    if not keeper.run():
        keeper.end_all(grace)
