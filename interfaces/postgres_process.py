"""The process of the embedded Postgres, and the locks of those that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl


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
