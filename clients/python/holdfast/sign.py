"""A sign that processes hand on to all that they start, and do not lose by what they do.

An environment can be emptied, a session left, a parent lost. What a process may use is inherited
through all of that, and can be read by everyone (Linux). So the sign is a limit that is none: so
many microseconds for which a real-time process may compute without a pause. It is a number of the
run's own, of over 70,000 years.
"""

from __future__ import annotations

import hashlib
import resource
from contextlib import suppress
from pathlib import Path

_LIMIT = getattr(resource, "RLIMIT_RTTIME", None)
_LEAST = 1 << 61
_NAME = "Max realtime timeout"


def sign_of(run: str) -> int:
    """The number that stands for a run."""
    return _LEAST | int.from_bytes(hashlib.sha256(run.encode()).digest()[:7], "big")


def put_on(run: str) -> None:
    """This process, and all that it starts from here on, bears the run's sign, if it can."""
    if _LIMIT is not None:
        with suppress(OSError, ValueError):
            resource.setrlimit(_LIMIT, (sign_of(run), resource.getrlimit(_LIMIT)[1]))


def bears(process: Path, run: str) -> bool:
    """Whether the process with this folder in ``/proc`` does."""
    try:
        limits = (process / "limits").read_text(errors="replace")
    except OSError:
        return False
    lines = (line for line in limits.splitlines() if line.startswith(_NAME))
    return any(line[len(_NAME) :].split()[0] == str(sign_of(run)) for line in lines)
