"""Names and ids of people's making in their one form, as the service has them.

The service decides; here what a person gives is refused before a run begins of which nobody can be
asked, and what the machine says of a folder or of its host is made fit. A test compares the two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

from holdfast.errors import InvalidInput
from holdfast.facts import spelled
from holdfast.request import Write

MAX_LENGTH = 200
# What a person gives a name to, and where it stands in the request.
_NAMED: Mapping[str | None, tuple[str, ...]] = {
    "session": ("project_id", "machine_id"),
    "instance": ("project",),
}
# What stands for a folder or a host of whose name nothing can be seen.
UNNAMED = "unnamed"

# Clients and proxies resolve these two in a URL, encoded or not.
_UNADDRESSABLE = frozenset({".", ".."})
_IN_URLS = frozenset({"machine_id", "--machine", "--claim"})
_NO_TEXT = re.compile("[\ud800-\udfff]")
_ZWNJ, _ZWJ, _BLACK_FLAG = "\u200c", "\u200d", "\U0001f3f4"
_EMOJI_STYLE = "\ufe0e\ufe0f"
_TAGS = re.compile("[\U000e0020-\U000e007f]")
# Letters, marks and symbols without a shape of their own: fillers, joiners, variation selectors.
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\uffa0\ufe00-\ufe0f"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def given(name: str, option: str) -> str:
    """A name that a person gave. Raises :class:`InvalidInput` that names the option."""
    known = normal(name)
    hidden = unseen(known)
    if not known:
        raise InvalidInput(f"{option} must not be blank.")
    if hidden is not None:
        shown = f"U+{ord(hidden):04X}"
        raise InvalidInput(f"{option} has a character that cannot be seen: {shown}.")
    if len(known) > MAX_LENGTH:
        raise InvalidInput(f"{option} should have at most {MAX_LENGTH} characters.")
    if known in _UNADDRESSABLE and option in _IN_URLS:
        raise InvalidInput(f"{option} must not be . or .., which no URL can name.")
    return known


def misnamed(write: Write) -> InvalidInput | None:
    """Why the service would refuse to create a session or an instance of such a name.

    Kept while the service is away it would be refused once nobody is there to mend it.
    """
    body = write.request.body or {}
    for field in _NAMED.get(write.creates, ()):
        name = body.get(field)
        try:
            if not isinstance(name, str):
                raise InvalidInput(f"{field} must be text.")
            given(_NO_TEXT.sub(lambda found: spelled(found[0]), name), field)
        except InvalidInput as e:
            told = e.message.removeprefix(f"{field} ").rstrip(".")
            return InvalidInput(
                e.message, code="validation_error", errors=[{"field": field, "message": told}]
            )
    return None


def fit(name: str) -> str:
    """A name that can be recorded, as like this one as can be; the same for the same name."""
    # Bytes that are no text reach Python as halves of surrogate pairs.
    seen = normal(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    while unseen(seen) is not None:
        kept = (c for at, c in enumerate(seen) if not _is_unseen(c) or _is_needed(seen, at))
        seen = normal("".join(kept))
    if len(seen) > MAX_LENGTH:
        digest = hashlib.sha256(seen.encode()).hexdigest()[:8]
        return fit(f"{seen[: MAX_LENGTH - 9].rstrip()}-{digest}")
    return seen or UNNAMED


def normal(text: str) -> str:
    """The one form of a name or id: NFC, every blank a space, none at either end."""
    if text.isascii():
        return text.strip(" ")
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in composed).strip(" ")


def unseen(text: str) -> str | None:
    """The first character that cannot be seen, or that turns others around; None if all can.

    A joiner counts as seen where writing needs it: within an emoji, in Persian, in Indic scripts.
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
    """Whether the joiner, style or tag at this place belongs to a character that shows it."""
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
