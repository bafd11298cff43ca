"""The process of the embedded Postgres, and the locks of those that use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

if sys.platform != "win32":
    import fcntl

STOP_TIMEOUT_SECONDS = 60.0
# Who has not even begun to stop by then is not let go on by whoever stopped it.
REACT_SECONDS = 3.0
_POLL_SECONDS = 0.02
# Where postmaster.pid tells what the server is about, counted from 0.
_STATUS_LINE = 7


def lock(path: Path, operation: int) -> int:
    """Take a lock that lasts until the returned descriptor, or the process, is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def command_line(pid: int) -> str:
    """The command line of a process; empty if it has ended, reaped by its parent or not."""
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            return ""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout


def end(
    pid: int, pid_file: Path, is_running: Callable[[], bool]
) -> Literal["ended", "frozen", "stuck"]:
    """Have a postmaster end, in order if it can; ``frozen`` is one that does not even begin."""
    # SIGINT: fast shutdown. SIGQUIT: at once, with recovery at the next start.
    for number in (signal.SIGINT, signal.SIGQUIT):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return "ended"
        # One that was stopped hears of it only when it goes on, and waits for those it started.
        for one in (pid, *children_of(pid)):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)
        began = time.monotonic()
        while is_running():
            patience = STOP_TIMEOUT_SECONDS if _is_stopping(pid_file) else REACT_SECONDS
            if time.monotonic() - began > patience:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return "ended"
    return "stuck" if _is_stopping(pid_file) else "frozen"


def _is_stopping(pid_file: Path) -> bool:
    """Whether the server says that it is shutting down."""
    with suppress(OSError):
        said = pid_file.read_text().splitlines()
        return len(said) > _STATUS_LINE and said[_STATUS_LINE].strip() == "stopping"
    return False


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, as far as they run."""
    with suppress(OSError):
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return list(map(int, told.split()))
    with suppress(OSError):
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False
        )
        pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
        return [child for child, parent in pairs if parent == pid]
    return []
