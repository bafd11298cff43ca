"""API keys: who sends a request, and into which namespace (S4 1.3)."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from domain.errors import HoldfastError
from interfaces.access.addresses import neighbourhood
from interfaces.access.key_strength import weakness
from interfaces.access.repeats import Repeats

log = logging.getLogger("holdfast.auth")

DEFAULT_NAMESPACE = "default"
MAX_KEY_LENGTH = 128
FAILED = "authentication_failed"
# A success is logged at once when a key is new from an address, then counted and summed up.
SUMMARY_SECONDS = 60.0
# Of so many keys and addresses; of more, the first to have come is new again.
MAX_PLACES = 10_000

_WELL_FORMED = re.compile(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Unauthorized(HoldfastError):
    """Invalid API key"""

    code = "unauthorized"


class Principal(NamedTuple):
    """The client that a key identifies: its namespace, and the id recorded with events."""

    namespace: str
    key_id: str
    # The client whose keys may change: its name, blank for the one without a name. A request that
    # it repeats under another key of its own is still the same request.
    name: str = ""


class ApiKeys:
    """The accepted keys. Only their hashes are kept."""

    def __init__(self, principals: Mapping[bytes, Principal], weak: Sequence[str] = ()) -> None:
        self._principals = dict(principals)
        # Which entries could be guessed, and why, without telling them.
        self.weak = tuple(weak)

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """Keys separated by commas: ``KEY``, ``namespace:KEY`` or ``name@namespace:KEY``.

        One key may be listed twice if both entries say the same. Raises ``ValueError`` that tells
        entries by their numbers.
        """
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        if not entries:
            raise ValueError("is set but holds no key")
        principals: dict[bytes, Principal] = {}
        numbers: dict[bytes, int] = {}
        weak, problems = [], []
        for number, entry in enumerate(entries, 1):
            try:
                key, principal = _parsed(entry)
            except ValueError as e:
                problems.append(f"entry {number}: {e}")
                continue
            digest = _digest(key)
            first = numbers.setdefault(digest, number)
            if principals.setdefault(digest, principal) != principal:
                problems.append(
                    f"entries {first} and {number} are the same key"
                    f" {_difference(principals[digest], principal)}: each needs a key of its own"
                )
            elif first == number and (reason := weakness(key)) is not None:
                weak.append(f"entry {number} {reason}")
        if problems:
            raise ValueError("; ".join(problems))
        return cls(principals, weak)

    def authenticate(self, key: str | None, address: str) -> Principal:
        """The key's principal. Raises :class:`Unauthorized` with S4's three messages."""
        if key is None:
            raise self._refused("API key required", key, address)
        if not is_well_formed(key):
            raise self._refused("Malformed API key", key, address)
        principal = self._principals.get(_digest(key))
        if principal is None:
            raise self._refused("Invalid API key", key, address)
        _successes.note(principal, key, address)
        return principal

    def _refused(self, message: str, key: str | None, address: str) -> Unauthorized:
        kept_back = failures.note(neighbourhood(address))
        if kept_back is not None:
            log.warning(
                FAILED,
                extra={
                    "reason": message,
                    "ip": address,
                    "api_key": mask(key),
                    # How many went before this one without a line of their own.
                    "attempts_since_last_line": kept_back,
                },
            )
        return Unauthorized(message)


class _Successes:
    """Logs successful attempts without a line for each of a fleet's heartbeats."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, principal: Principal, key: str, address: str) -> None:
        who = (principal.key_id, address)
        now = time.monotonic()
        if who not in self._counts and len(self._counts) >= MAX_PLACES:
            del self._counts[next(iter(self._counts))]
        since, count = self._counts.get(who, (0.0, 0))
        if count and now - since < SUMMARY_SECONDS:
            self._counts[who] = (since, count + 1)
            return
        log.info(
            "authentication_succeeded",
            extra={
                "ip": address,
                "api_key": mask(key),
                "key_id": principal.key_id,
                "namespace": principal.namespace,
                # How many went before this one without a line of their own.
                "attempts_since_last_line": max(count - 1, 0),
            },
        )
        self._counts[who] = (now, 1)


_successes = _Successes()
failures = Repeats()


def is_well_formed(key: str) -> bool:
    """Neither blank nor too long, and without control or non-ASCII characters."""
    return len(key) <= MAX_KEY_LENGTH and _WELL_FORMED.fullmatch(key) is not None


def mask(key: str | None) -> str:
    """A key as it may be logged: enough to tell two keys apart, too little to use one."""
    if not key:
        return "none"
    shown = key[:4] if len(key) >= 16 else ""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in shown) + "****"


def _parsed(entry: str) -> tuple[str, Principal]:
    place, colon, key = entry.rpartition(":")
    name, at, namespace = place.rpartition("@")
    if colon and not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"the namespace must match {_NAMESPACE.pattern}")
    if at and not _NAMESPACE.fullmatch(name):
        raise ValueError(f"the name before @ must match {_NAMESPACE.pattern}")
    if not is_well_formed(key):
        raise ValueError(f"a key is 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    return key, Principal(namespace or DEFAULT_NAMESPACE, _digest(key).hex()[:8], name)


def _difference(one: Principal, other: Principal) -> str:
    if one.namespace != other.namespace:
        return f"in two namespaces ({one.namespace} and {other.namespace})"
    return f"under two names ({one.name or 'none'} and {other.name or 'none'})"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
