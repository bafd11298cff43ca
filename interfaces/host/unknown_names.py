"""Variables in the environment that are meant for holdfast and that nothing reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

PREFIX = "HOLDFAST_"
# What the client reads, and what it tells the processes that it starts (a test compares the two).
OF_THE_CLIENT = frozenset(
    PREFIX + name
    for name in (
        "URL",
        "API_KEY",
        "SESSION_ID",
        "INSTANCE_ID",
        "SPOOL_DIR",
        "ITEM",
        "FENCE",
        "RUN",
        "SUPERVISOR",
        "SUPERVISOR_FENCES",
    )
)
# What an earlier .env.example offered though nothing read it, with the value that asks for nothing.
WITHOUT_EFFECT: Mapping[str, str | None] = {
    "RATE_LIMIT_PER_MINUTE": "0",
    "RATE_LIMIT_INGEST_PER_MINUTE": "0",
    "RATE_LIMIT_STORAGE": None,
    "EVENT_RETENTION_DAYS": None,
    "HEARTBEAT_RETENTION_DAYS": None,
    "ARCHIVE_DIR": None,
    "CORS_ORIGINS": None,
}
# Shorter names resemble too much that is none of our business; of a long one two letters may be
# wrong.
LONG_ENOUGH = 7
LONG = 16
# A name of so many words is nobody else's, even where the right one is set as well.
OUR_OWN_WORDS = 3
_UNIT = re.compile(r"_(MS|MILLIS|SECS?|SECONDS?|MINUTES?|HOURS?|DAYS?)$")
# Kubernetes and Docker tell a service's neighbours of it by such names; tests have their own.
_NOT_OURS = re.compile(r"HOLDFAST_(TEST_\w+|(\w+_)?(SERVICE_(HOST|PORT)|PORT_\d+_[A-Z]+)(_\w+)?)")
_LINK = re.compile(r"(tcp|udp|sctp)://")


def unknown(environ: Mapping[str, str], settings: Collection[str]) -> dict[str, str | None]:
    """The variables that nothing reads though they are ours, or look like a setting of ours.

    With each the name that it may be meant for, or None where nothing is like it.
    """
    found: dict[str, str | None] = {}
    for variable, value in sorted(environ.items()):
        if variable in settings or variable in OF_THE_CLIENT:
            continue
        if variable.startswith(PREFIX):
            if not _NOT_OURS.fullmatch(variable) and not _LINK.match(value):
                found[variable] = _meant_with_prefix(variable, settings)
        elif variable in WITHOUT_EFFECT:
            if value.strip() not in ("", WITHOUT_EFFECT[variable]):
                found[variable] = None
        else:
            name = _alike(variable, [*settings, *WITHOUT_EFFECT])
            if name is not None and (name not in environ or name.count("_") >= OUR_OWN_WORDS - 1):
                found[variable] = name if name in settings else None
    return found


def _meant_with_prefix(variable: str, settings: Collection[str]) -> str | None:
    rest = variable.removeprefix(PREFIX)
    if rest in settings:
        return rest
    return _alike(variable, OF_THE_CLIENT) or _alike(rest, settings)


def _alike(variable: str, names: Collection[str]) -> str | None:
    """The name that the variable is a misspelling of: a letter or two, or another unit."""
    given = variable.upper()
    best: str | None = None
    best_ratio = 0.0
    for name in names:
        if len(name) < LONG_ENOUGH:
            continue
        if _UNIT.search(given) and _UNIT.sub("", given) == _UNIT.sub("", name):
            return name
        # A letter that is wrong, or two that changed places, count for one of the name's.
        least = 1 - (1 if len(name) < LONG else 2) / len(name) - 1e-9
        matcher = difflib.SequenceMatcher(None, given, name, autojunk=False)
        if matcher.real_quick_ratio() < least:
            continue
        ratio = matcher.ratio()
        if ratio >= max(least, best_ratio):
            best, best_ratio = name, ratio
    return best
