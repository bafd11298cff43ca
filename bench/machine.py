"""The machine that figures were taken on, and who else was using it meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def described(data_dir: Path) -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "cores": os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "file_system": file_system(data_dir),
        "sync_ms": round(sync_seconds(data_dir) * 1000, 3),
    }


def file_system(path: Path) -> str:
    """The type of the file system that a folder is on."""
    mounts = psutil.disk_partitions(all=True)
    above = [m for m in mounts if path.is_relative_to(m.mountpoint)]
    return str(max(above, key=lambda m: len(m.mountpoint)).fstype) if above else "unknown"


def sync_seconds(folder: Path, times: int = 50) -> float:
    """What it takes to make 8 KiB durable, which no commit can be faster than."""
    sync = getattr(os, "fdatasync", os.fsync)
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(times):
            started = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            sync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def revision() -> str | None:
    """The git revision, marked when files differ from it; None outside a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!bench", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}, changed" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else "unknown"


def cpu_seconds(process: psutil.Process) -> float:
    """What a process alone has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def family_cpu_seconds(parent: psutil.Process) -> float:
    """What a process, its children and those of them that have ended have used."""
    times = parent.cpu_times()
    total = float(
        times.user
        + times.system
        + getattr(times, "children_user", 0)
        + getattr(times, "children_system", 0)
    )
    for child in parent.children(recursive=True):
        try:
            total += cpu_seconds(child)
        except psutil.NoSuchProcess:
            continue  # counted with its parent's ended children
    return total


class Elsewhere:
    """How much of the machine was used by nobody who takes part: noise in every figure."""

    def __init__(self, families: Sequence[psutil.Process]) -> None:
        self._families = families
        self._since = time.monotonic()
        self._busy = _busy_seconds()
        self._ours = self._our_seconds()

    def cores(self) -> float:
        """Cores that others kept busy on average since this object was made."""
        passed = time.monotonic() - self._since
        others = _busy_seconds() - self._busy - (self._our_seconds() - self._ours)
        return max(0.0, others / passed) if passed else 0.0

    def _our_seconds(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
        return used + sum(family_cpu_seconds(family) for family in self._families)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    # On Linux guest time is contained in user time.
    return float(sum(times) - times.idle - sum(getattr(times, n, 0) for n in _NOT_WORK))


_NOT_WORK = ("iowait", "steal", "guest", "guest_nice")
