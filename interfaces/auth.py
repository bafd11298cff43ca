"""API keys: who sends a request, and into which namespace (S4 1.3)."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from domain.errors import HoldfastError

log = logging.getLogger("holdfast.auth")

DEFAULT_NAMESPACE = "default"
MAX_KEY_LENGTH = 128
# A success is logged at once when a key is new from an address, then counted and summed up.
SUMMARY_SECONDS = 60.0

_WELL_FORMED = re.compile(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Unauthorized(HoldfastError):
    """Invalid API key"""

    code = "unauthorized"


class Principal(NamedTuple):
    """Whom a key stands for: its namespace, and the id under which it is recorded."""

    namespace: str
    key_id: str


class ApiKeys:
    """The accepted keys. Only their hashes are kept."""

    def __init__(self, principals: Mapping[bytes, Principal]) -> None:
        self._principals = dict(principals)

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """Keys separated by commas, each ``KEY`` or ``namespace:KEY``. Raises ``ValueError``."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        if not entries:
            raise ValueError("is set but holds no key")
        principals = {}
        for number, entry in enumerate(entries, 1):
            namespace, colon, key = entry.rpartition(":")
            if colon and not _NAMESPACE.fullmatch(namespace):
                raise ValueError(f"entry {number}: the namespace must match {_NAMESPACE.pattern}")
            if not is_well_formed(key):
                raise ValueError(
                    f"entry {number}: a key is 1 to {MAX_KEY_LENGTH} printable ASCII characters"
                )
            digest = _digest(key)
            principals[digest] = Principal(namespace or DEFAULT_NAMESPACE, digest.hex()[:8])
        return cls(principals)

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
        log.warning(
            "authentication_failed",
            extra={"reason": message, "ip": address, "api_key": mask(key)},
        )
        return Unauthorized(message)


class _Successes:
    """Logs successful attempts without a line for each of a fleet's heartbeats."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, principal: Principal, key: str, address: str) -> None:
        who = (principal.key_id, address)
        now = time.monotonic()
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


def is_well_formed(key: str) -> bool:
    """Neither blank nor too long, and without control or non-ASCII characters."""
    return len(key) <= MAX_KEY_LENGTH and _WELL_FORMED.fullmatch(key) is not None


def mask(key: str | None) -> str:
    """What may be logged of a key: enough to tell two apart, too little to use."""
    if not key:
        return "none"
    shown = key[:4] if len(key) >= 16 else ""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in shown) + "****"


def development_key(data_dir: Path) -> str:
    """The development key of a data folder: made at first, kept readable to its owner only."""
    path = data_dir / "api_key"
    if path.exists():
        return path.read_text().strip()
    key = secrets.token_hex(16)
    path.touch(mode=0o600)
    path.write_text(key + "\n")
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
