"""Normal forms of names, and instance ids, ``{project}-{type}-{hash}`` (spec 4).

Names and ids are Unicode NFC without outer blanks or invisible characters, so that names that look
the same are the same, and whatever can be created can be addressed (spec 17, decision 17).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

MIN_HASH_PREFIX = 4
HASH_LENGTH = 6
MAX_SLUG_LENGTH = 63
DEFAULT_TYPES = ("PS", "MS")

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# The type and the hash have no hyphens, so everything before them is the project.
_ID = re.compile(r"(?P<project>[a-z0-9][a-z0-9-]{0,62})-(?P<type>[A-Z0-9]+)-(?P<hash>[0-9a-f]{6})")
_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")
_DIGEST_LENGTH = 8

_ZWNJ, _ZWJ, _BLACK_FLAG = "\u200c", "\u200d", "\U0001f3f4"
_EMOJI_STYLE = "\ufe0e\ufe0f"
_TAGS = re.compile("[\U000e0020-\U000e007f]")
# Letters, marks and symbols that are invisible: fillers, joiners, variation selectors.
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\uffa0\ufe00-\ufe0f"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


class InstanceId(NamedTuple):
    """The parts of an instance id."""

    project: str
    instance_type: str
    hash: str

    def __str__(self) -> str:
        return f"{self.project}-{self.instance_type}-{self.hash}"


def normal(text: str) -> str:
    """The normal form of a name or id: NFC, every blank a space, none at either end."""
    if text.isascii():
        return text.strip(" ")
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in composed).strip(" ")


def unseen(text: str) -> str | None:
    """The first character that is invisible or changes text direction; None if there is none.

    A joiner is allowed where writing needs it: within an emoji, in Persian, in Indic scripts.
    """
    if text.isascii() and text.isprintable():
        return None
    for at, character in enumerate(text):
        if _is_unseen(character) and not _is_needed(text, at):
            return character
    return None


def _is_unseen(character: str) -> bool:
    unseen = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return unseen or _SHAPELESS.match(character) is not None


def _is_needed(text: str, at: int) -> bool:
    """Whether the joiner, variation selector or tag here belongs to a visible character."""
    character, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if not before:
        return False
    if character in _EMOJI_STYLE:
        is_symbol = unicodedata.category(before) in ("So", "Sm", "Po", "Cn")
        return after == "\u20e3" or (is_symbol and not before.isascii())
    if _TAGS.match(character):
        return before == _BLACK_FLAG or _TAGS.match(before) is not None
    if character not in (_ZWNJ, _ZWJ) or not after:
        return False
    if unicodedata.combining(before) == 9:  # a virama, after which it shapes the letter
        return True
    if character == _ZWNJ:
        letter = next((c for c in reversed(text[:at]) if not unicodedata.combining(c)), "")
        return all(c and unicodedata.bidirectional(c) == "AL" for c in (letter, after))
    is_emoji = unicodedata.category(before) in ("So", "Sk", "Cn") or before in _EMOJI_STYLE
    return is_emoji and unicodedata.category(after) in ("So", "Sm", "Cn")


def slug(project: str) -> str:
    """The project's name as used in ids; different spellings give the same.

    ``odin`` stays ``odin``, ``Odin X`` becomes ``odin-x``. Case, blanks and punctuation do not
    distinguish projects. If distinguishing characters are left out or cut off, 8 hex digits of the
    name's SHA-256 replace them: ``проект`` is ``p-dfb992e6``, ``日本 app`` is ``app-`` and a hash.
    """
    name = normal(project)
    if _SLUG.fullmatch(name):
        return name
    low = name.lower()
    made = _NOT_IN_SLUG.sub("-", low).strip("-")
    if made and len(made) <= MAX_SLUG_LENGTH and not any(map(_tells_apart, low)):
        return made
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    kept = made[: MAX_SLUG_LENGTH - _DIGEST_LENGTH - 1].rstrip("-")
    return f"{kept or 'p'}-{digest}"


def _tells_apart(character: str) -> bool:
    """Whether dropping this character could merge two projects: C, C# and C++ are three."""
    if character.isascii() and character.isalnum():
        return False
    return unicodedata.category(character)[0] in "LMNS" or character == "#"


def generate(project: str, instance_type: str, at: datetime, entropy: bytes) -> InstanceId:
    """A new id; its hash is 6 hex digits of a SHA-256 over time, random bytes, project and type.

    With 16^6 hashes two ids clash now and then; the caller must then generate another.
    """
    digest = hashlib.sha256()
    for part in (at.isoformat().encode(), entropy, project.encode(), instance_type.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    return InstanceId(project, instance_type, digest.hexdigest()[:HASH_LENGTH])


def parse(text: str, types: Collection[str] = DEFAULT_TYPES) -> InstanceId | None:
    """The parts of an id; None if it is not an instance id."""
    found = _ID.fullmatch(text)
    if found is None or found["type"] not in types:
        return None
    return InstanceId(found["project"], found["type"], found["hash"])


def is_reference(text: str) -> bool:
    """Whether this can be a prefix of an id or of a hash: at least four plain characters."""
    return len(text) >= MIN_HASH_PREFIX and re.fullmatch(r"[A-Za-z0-9-]+", text) is not None


def matches(reference: str, instance_id: str) -> bool:
    """Whether the reference is a prefix of the id or, from four digits on, of its hash."""
    return instance_id.startswith(reference) or instance_id.rpartition("-")[2].startswith(reference)
