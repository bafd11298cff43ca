"""Where a working copy stands, as a heartbeat tells it (spec 4)."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from holdfast import names

TIMEOUT_SECONDS = 2.0
# A working copy too large to be looked at in that time is not looked at again at every beat.
REST_SECONDS = 600.0


class WorkingCopy:
    """Looks at a folder now and then. Never fails: what cannot be told is left out."""

    def __init__(self, folder: Path | None = None, timeout: float = TIMEOUT_SECONDS) -> None:
        self._folder = folder or Path.cwd()
        self._timeout = timeout
        self._rest_until = 0.0

    def state(self) -> dict[str, Any] | None:
        """``{branch, head, dirty_files, unpushed_commits}``; ``None`` where there is no git.

        Unpushed is what no remote has, dirty also what git does not know.
        """
        if time.monotonic() < self._rest_until:
            return None
        try:
            status = self._git("status", "--porcelain=v2", "--branch")
            if status is None:
                return None
            found = _read(status)
            if found.get("head"):
                count = self._git("rev-list", "--count", "HEAD", "--not", "--remotes")
                if count is not None:
                    found["unpushed_commits"] = int(count)
        except subprocess.TimeoutExpired:
            self._rest_until = time.monotonic() + REST_SECONDS
            return None
        except (OSError, ValueError):
            return None
        return found

    def name(self) -> str:
        """The name of the working copy's folder, or of the folder itself: a project's name."""
        try:
            top = self._git("rev-parse", "--show-toplevel")
        except (OSError, subprocess.TimeoutExpired):
            top = None
        return names.fit((Path(top.removesuffix("\n")) if top else self._folder.resolve()).name)

    def _git(self, *arguments: str) -> str | None:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self._folder,
            # Neither in the way of the git of the work itself nor asking anyone for a password.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=self._timeout,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None


def _read(status: str) -> dict[str, Any]:
    """What ``git status --porcelain=v2 --branch`` says."""
    found: dict[str, Any] = {"dirty_files": 0}
    for line in status.splitlines():
        match line.split(maxsplit=2):
            case ["#", "branch.oid", head] if head != "(initial)":
                found["head"] = head
            case ["#", "branch.head", branch] if branch != "(detached)":
                found["branch"] = branch
            case ["#", *_]:
                continue
            case _:
                found["dirty_files"] += 1
    return found
