"""What runs of this machine left behind when both their supervisor and its guardian were killed.

Each run has a file while it lives, which names its supervisor. The next run of the same user ends
what is left of those who are no more, whether or not anybody carries their work on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.process import Process
from holdfast.supervision import guarded, named_by

# Those of other systems (a container that shares the folder) cannot be judged from here.
FORGOTTEN_SECONDS = 30 * 24 * 3600.0
SUFFIX = ".run"


@contextmanager
def on_record(folder: Path, supervisor: str) -> Iterator[None]:
    """Within the block the run is known to whoever comes after it."""
    path: Path | None = None
    run = named_by(supervisor)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if run is not None and _is_ours(folder):
            path = folder / f"{run.run}{SUFFIX}"
            with open(path, "x", encoding="ascii", opener=_for_us_only) as file:
                file.write(supervisor)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def end_leftovers(folder: Path) -> list[Process]:
    """End them; who they were."""
    ended: list[Process] = []
    with suppress(OSError):
        if _is_ours(folder):
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                with suppress(OSError, ValueError):
                    ended += _end(path)
    return ended


def _end(path: Path) -> list[Process]:
    run = named_by(path.read_text(encoding="ascii"))
    if run is None or f"{run.run}{SUFFIX}" != path.name:
        return []
    if not run.has_ended:
        if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS and not run.is_of_here:
            path.unlink(missing_ok=True)
        return []
    if guarded(run.run):
        # Its guardian is about to end them, and gives them the time that they were promised.
        return []
    found = run.leftovers()
    if not run.end_leftovers():
        path.unlink(missing_ok=True)
    return found


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have written there what is to be ended."""
    seen = folder.stat()
    return seen.st_uid == os.geteuid() and not seen.st_mode & 0o022


def _for_us_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
