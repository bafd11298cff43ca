"""Whether an API key could be guessed: what production, and an open address, ask of a key."""

from __future__ import annotations

import re
from itertools import pairwise

MIN_LENGTH = 24
# What must be left of a key once words and sequences are taken out, and of how many kinds.
MIN_RANDOM = 14
MIN_DISTINCT = 8

# Of three letters or less only as a whole word, or random keys would lose letters to them.
_GUESSED = """
a abc access admin an and any api apikey asdf at auth backend bar battery be bearer by change
changeit changeme char character ci correct correcthorsebatterystaple credential default demo
deploy dev development do document documentation dont dummy enter environment example fake fill
fix foo foobar for from generate good has here hf hold holdfast horse hunter hunter2 id in
insert integration ipsum is it key keys letmein local localhost long longer lorem main master me
my new no not of old on one or our pass passphrase password passwort placeholder please prod
production qwerty qwertyuiop random real replace replaceme root sample secret secure server
service set short simple some stage staging staple start strong super supersecret team temp
temporary test tested testing tests that the then this tmp to todo token two update us use user
value very weak with word xxx you your
"""
_WORDS = frozenset(_GUESSED.split())
_LONG_WORDS = re.compile(
    "|".join(sorted((w for w in _WORDS if len(w) >= 4), key=len, reverse=True))
)
# Steps from one character to the next, and how long a run of them is no chance any more.
_SEQUENCES = (({0}, 4), ({1}, 4), ({-1}, 4), ({0, 1}, 8), ({0, -1}, 8))
_PART = re.compile(r"[a-z]+|[0-9]+")


def weakness(key: str) -> str | None:
    """What makes a key too easy to guess, in words that do not tell it; None for a good one.

    A hint, not a proof: it finds keys that people make up, and no other kind of chance.
    """
    if len(key) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    if any(key[period:] == key[:-period] for period in range(1, len(key) // 2 + 1)):
        return "repeats itself"
    left = _without_sequences(_without_words(key.lower()))
    if len(left) < MIN_RANDOM or len(set(left)) < MIN_DISTINCT:
        return "is made of words or sequences that are easily guessed"
    return None


def _without_words(text: str) -> str:
    # Across what parts them, so that `pass-word` is one as well; then as whole words.
    joined = _LONG_WORDS.sub(" ", re.sub(r"[^a-z0-9]", "", text))
    words = {part for part in _PART.findall(text) if part in _WORDS}
    return "".join(part for part in _PART.findall(joined) if part not in words | _WORDS)


def _without_sequences(text: str) -> str:
    """The text without runs such as ``aaaa``, ``1234``, ``dcba`` or ``aabbccdd``."""
    for steps, least in _SEQUENCES:
        kept, run = "", text[:1]
        for last, char in pairwise(text):
            if ord(char) - ord(last) in steps:
                run += char
                continue
            kept += run if len(run) < least else ""
            run = char
        text = kept + (run if len(run) < least else "")
    return text
