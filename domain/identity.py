"""Instance ids, ``{project}-{type}-{hash}``: generate, validate, parse, match (S0, spec 4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

MIN_HASH_PREFIX = 4
HASH_LENGTH = 6
MAX_SLUG_LENGTH = 63
DEFAULT_TYPES = ("PS", "MS")

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# A project may have hyphens, a type and a hash have none: what is left of them is the project.
_ID = re.compile(r"(?P<project>[a-z0-9][a-z0-9-]{0,62})-(?P<type>[A-Z0-9]+)-(?P<hash>[0-9a-f]{6})")
_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")


class InstanceId(NamedTuple):
    """The parts of an id."""

    project: str
    instance_type: str
    hash: str

    def __str__(self) -> str:
        return f"{self.project}-{self.instance_type}-{self.hash}"


def slug(project: str) -> str | None:
    """The project's name as it stands in ids; None if nothing is left of it.

    ``odin`` stays ``odin``, ``Odin X`` becomes ``odin-x``.
    """
    if _SLUG.fullmatch(project):
        return project
    made = _NOT_IN_SLUG.sub("-", project.lower()).strip("-")[:MAX_SLUG_LENGTH].rstrip("-")
    return made or None


def generate(project: str, instance_type: str, at: datetime, entropy: bytes) -> InstanceId:
    """An id: the first 6 hex digits of SHA-256 over time, random bytes, project and type.

    There are 16^6 hashes: two draws clash now and then, so whoever registers draws again.
    """
    digest = hashlib.sha256()
    for part in (at.isoformat().encode(), entropy, project.encode(), instance_type.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    return InstanceId(project, instance_type, digest.hexdigest()[:HASH_LENGTH])


def parse(text: str, types: Collection[str] = DEFAULT_TYPES) -> InstanceId | None:
    """The parts of an id; None for what is not one."""
    found = _ID.fullmatch(text)
    if found is None or found["type"] not in types:
        return None
    return InstanceId(found["project"], found["type"], found["hash"])


def is_reference(text: str) -> bool:
    """Whether this can be a leading part of an id or of a hash: plain characters, four or more."""
    return len(text) >= MIN_HASH_PREFIX and re.fullmatch(r"[A-Za-z0-9-]+", text) is not None


def matches(reference: str, instance_id: str) -> bool:
    """Whether the reference is a leading part of the id or, from four digits on, of its hash."""
    return instance_id.startswith(reference) or instance_id.rpartition("-")[2].startswith(reference)
