"""Whether an API key could be guessed: what production, and an open address, ask of a key."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from itertools import pairwise

MIN_LENGTH = 24
# What must be left of a key once words and sequences are taken out, and of how many kinds.
MIN_RANDOM = 14
MIN_DISTINCT = 6

# Of three letters or less only as a whole word, or random keys would lose letters to them.
_GUESSED = """
a abc access admin aendern agent agents alpha amet an and any api apikey asdf at auth backend bar
baseball battery be bearer beta bitte brown by change changeit changeme char character ci claude
codex company consectetur correct correcthorsebatterystaple credential default demo deploy dev
develop development do document documentation dog dolor dont dragon dummy enter env environment
example fake fill fix foo foobar football for fox from geheim gen generate good has here hex hf
hold holdfast horse hunter hunter2 id iloveyou in insert instead integration internal ipsum is it
jumps key keys lazy letmein life live local localhost long longer lorem love machine main master me
monkey must my never new no not null odin of old on one only openssl or our output over pass
passphrase password passwort paste placeholder please private prod production public put quick rand
random real replace replaceme root rotate runner sample secret secure server service session set
share shared short should simple sit some something stage staging staple start string strong
sunshine super supersecret team temp temporary test tested testing tests that the then this tmp to
todo token two undefined update us use used user value very weak welcome with word xxx you your
"""
_WORDS = frozenset(_GUESSED.split())
_LONG_WORDS = re.compile(
    "|".join(sorted((w for w in _WORDS if len(w) >= 4), key=len, reverse=True))
)
# Steps from one character to the next, and how long a run of them is no chance any more.
_SEQUENCES = (({0}, 4), ({1}, 4), ({-1}, 4), ({0, 1}, 8), ({0, -1}, 8))
_PART = re.compile(r"[a-z]+|[0-9]+")
_YEAR = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}(?![0-9])")
_SEPARATORS = frozenset("-_. ")
# Written for letters, in `p@ssw0rd` and the like.
_LEET = tuple(str.maketrans("013457@$!", letters) for letters in ("oleastasi", "oieastasi"))
_KEYBOARD = (
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "q1w2e3r4t5y6u7i8o9p0q",
    "1q2w3e4r5t6y7u8i9o0p1",
)
_KEYBOARD_RUN = 5
# Random once, and printed in many a manual since; the last two are the digests of nothing.
_WELL_KNOWN = frozenset(
    {
        "123e4567e89b12d3a456426614174000",
        "550e8400e29b41d4a716446655440000",
        "f47ac10b58cc4372a5670e02b2c3d479",
        "6ba7b8109dad11d180b400c04fd430c8",
        "d290f1ee6c544b0190e6d701748f0851",
        "3fa85f6457174562b3fc2c963f66afa6",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "wjalrxutnfemik7mdengbpxrficyexamplekey",
        "d41d8cd98f00b204e9800998ecf8427e",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
)


def weakness(key: str) -> str | None:
    """What makes a key too easy to guess, in words that do not tell it; None for a good one.

    A hint, not a proof: it finds keys that people make up, and no other kind of chance.
    """
    if len(key) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    if any(key[period:] == key[:-period] for period in range(1, len(key) // 2 + 1)):
        return "repeats itself"
    lower = key.lower()
    if re.sub(r"[^a-z0-9]", "", lower) in _WELL_KNOWN:
        return "stands in manuals"
    readings = [lower, *(lower.translate(leet) for leet in _LEET), *_decoded(key)]
    # Two sequences that take turns: `a1b2c3`.
    readings.append(lower[::2] + lower[1::2])
    if not all(map(_is_random, readings)):
        return "is made of words or sequences that are easily guessed"
    return None


def _is_random(text: str) -> bool:
    """Whether enough is left of a text without what people think of."""
    left = _without_sequences(_without_walks(_without_words(_YEAR.sub(" ", text))))
    # Marks count once each: a row of them is no more than one.
    marks = {c for c in text if not c.isalnum()} - _SEPARATORS
    return len(left) + len(marks) >= MIN_RANDOM and len({*left, *marks}) >= MIN_DISTINCT


def _decoded(key: str) -> list[str]:
    """What the key says in base64 or in hexadecimal, if that is text."""
    plain = key.rstrip("=").translate(str.maketrans("+/", "-_"))
    if not re.fullmatch(r"[\w-]+", plain, re.ASCII):
        return []
    found = []
    padded = plain + "=" * (-len(plain) % 4)
    for decode, text in ((base64.urlsafe_b64decode, padded), (bytes.fromhex, plain)):
        with suppress(ValueError):
            meant = decode(text).decode("ascii")
            found += [meant.lower()] if meant.isprintable() else []
    return found


def _without_words(text: str) -> str:
    # As whole words; then across what parts them, so that `pass-word` is one as well.
    joined = "".join(part for part in _PART.findall(text) if part not in _WORDS)
    return "".join(
        part for part in _PART.findall(_LONG_WORDS.sub(" ", joined)) if part not in _WORDS
    )


def _without_walks(text: str) -> str:
    """The text without walks over the keyboard, in either direction."""
    for walk in (*_KEYBOARD, *(walk[::-1] for walk in _KEYBOARD)):
        start = 0
        while start + _KEYBOARD_RUN <= len(text):
            end = start + _KEYBOARD_RUN
            if text[start:end] not in walk:
                start += 1
                continue
            while end < len(text) and text[start : end + 1] in walk:
                end += 1
            text = text[:start] + text[end:]
    return text


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
