"""Where a working copy stands, as a heartbeat tells it (spec 4).

A working copy may have come from anywhere, with a configuration of its own that names programs:
hooks, monitors, filters, transports. It is asked without starting any of them, without what the
environment says to git, and without the API key.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.facts import fact

TIMEOUT_SECONDS = 2.0
# A working copy too large to be looked at in that time is not looked at again at every beat.
REST_SECONDS = 600.0
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_FILTERS = 1_000
# All that a repository's own configuration could start when it is looked at.
HARMLESS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=",
    "core.askPass=",
    "core.editor=false",
    "core.gitProxy=false",
    "core.pager=cat",
    "core.sshCommand=false",
    "credential.helper=",
    "diff.external=",
    "gc.auto=0",
    "gpg.program=false",
    "log.showSignature=false",
    "maintenance.auto=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "status.submoduleSummary=false",
    "submodule.recurse=false",
)
ENVIRONMENT = {
    # Neither in the way of the git of the work itself nor asking anyone for a password.
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    # What is missing in a partial clone stays missing.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_SSH_COMMAND": "false",
    "GIT_ATTR_NOSYSTEM": "1",
}


class WorkingCopy:
    """Looks at a folder now and then. Never fails: what cannot be told is left out."""

    def __init__(self, folder: Path | None = None, timeout: float = TIMEOUT_SECONDS) -> None:
        # Where we are may have been deleted.
        self._folder = folder or _here()
        self._timeout = timeout
        self._rest_until = 0.0

    def state(self) -> dict[str, Any] | None:
        """``{branch, head, dirty_files, unpushed_commits}``; ``None`` where there is no git.

        Unpushed is what no remote has, dirty also what git does not know.
        """
        if time.monotonic() < self._rest_until:
            return None
        try:
            filters = self._filters()
            status = filters is not None and self._git(
                "status", "--porcelain=v2", "--branch", "--ignore-submodules=all", without=filters
            )
            if not status:
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
        if top:
            return names.fit(Path(top.removesuffix("\n")).name)
        return names.fit("" if self._folder is None else self._folder.resolve().name)

    def _filters(self) -> list[str] | None:
        """The filters that the configuration knows; ``None`` if it cannot be read.

        ``git status`` runs them over files that may have changed.
        """
        found = self._git(
            "config", "--null", "--name-only", "--get-regexp", r"^filter\.", codes=(0, 1)
        )
        if found is None:
            return None
        keys = (key[len("filter.") :].rpartition(".")[0] for key in found.split("\0") if key)
        filters = list(dict.fromkeys(keys))
        return filters if len(filters) <= MAX_FILTERS else None

    def _git(
        self, *arguments: str, without: Sequence[str] = (), codes: Sequence[int] = (0,)
    ) -> str | None:
        """What git says; ``None`` if there is none, or it ends with another code.

        Raises ``subprocess.TimeoutExpired``, also if it does not stop talking.
        """
        program = _program()
        if program is None or self._folder is None:
            return None
        harmless = [word for setting in HARMLESS for word in ("-c", setting)]
        with subprocess.Popen(
            [program, "--no-pager", *harmless, *arguments],
            cwd=self._folder,
            env=_environment(without),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as asked:
            assert asked.stdout is not None
            given_up = threading.Event()
            timer = threading.Timer(self._timeout, _give_up, (asked.pid, given_up))
            timer.daemon = True
            timer.start()
            try:
                said = asked.stdout.read(MAX_OUTPUT_BYTES + 1)
                if len(said) > MAX_OUTPUT_BYTES:
                    _give_up(asked.pid, given_up)
                code = asked.wait()
            finally:
                timer.cancel()
        if given_up.is_set():
            raise subprocess.TimeoutExpired(program, self._timeout)
        return os.fsdecode(said) if code in codes else None


def _give_up(pid: int, given_up: threading.Event) -> None:
    given_up.set()
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _program() -> str | None:
    """The user's git, never one that lies in the folder that is looked at."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which("git", path=os.pathsep.join(filter(os.path.isabs, folders)))


def _environment(without: Sequence[str]) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("GIT_", "HOLDFAST_"))}
    settings = dict(_neutral(without))
    told = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        told |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {**kept, **ENVIRONMENT, **told}


def _neutral(filters: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in filters:
        for name in ("clean", "smudge", "process"):
            yield f"filter.{one}.{name}", ""
        yield f"filter.{one}.required", "false"


def _read(status: str) -> dict[str, Any]:
    """What ``git status --porcelain=v2 --branch`` says."""
    found: dict[str, Any] = {"dirty_files": 0}
    for line in status.splitlines():
        match line.split(maxsplit=2):
            case ["#", "branch.oid", head] if head != "(initial)":
                found["head"] = head
            case ["#", "branch.head", branch] if branch != "(detached)":
                found["branch"] = fact(branch)
            case ["#", *_]:
                continue
            case _:
                found["dirty_files"] += 1
    return found
