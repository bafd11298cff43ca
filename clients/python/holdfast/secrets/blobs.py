"""Whether a word is so random that it was drawn, and not made up by anybody."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

MASK = "***"
# Base64 and what is like it. What follows the name of a checksum is one.
_RUN = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?<!sha1[-:])(?<!sha256[-:])(?<!sha384[-:])(?<!sha512[-:])(?<!SHA256:)"
    r"(?!sha(?:1|256|384|512)-)[A-Za-z0-9+/_-]{22,}={0,2}(?![A-Za-z0-9])"
)
_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]+")
SHORTEST = 20
# Of small letters and digits there are more that are ids.
SHORTEST_OF_ONE_CASE = 30
# Bits a letter: what people write has less, what is drawn from 62 letters has more.
LEAST_ENTROPY = 3.7
# How often one kind of letter (small, capital, digit) follows another: in two of three places if
# drawn from 62 letters, in one of three in names that people give; with one case in two of five.
LEAST_CHANGES = 0.45
LEAST_CHANGES_OF_ONE_CASE = 0.3


def masked_blobs(text: str) -> str:
    """The text with every such word masked. Paths, ids in hexadecimal and prose stay."""
    return _RUN.sub(_if_random, text)


def is_random(word: str) -> bool:
    """Whether nobody can have made this up."""
    letters = re.sub(r"[^A-Za-z0-9]", "", word)
    if len(letters) < SHORTEST or _HEX.fullmatch(letters) or letters.isdecimal():
        return False
    if letters.isalpha():
        return False
    kinds = ["0" if one.isdecimal() else "A" if one.isupper() else "a" for one in letters]
    changes = sum(one != next_one for one, next_one in pairwise(kinds))
    has_both = "A" in kinds and "a" in kinds
    if not has_both and len(letters) < SHORTEST_OF_ONE_CASE:
        return False
    least = LEAST_CHANGES if has_both else LEAST_CHANGES_OF_ONE_CASE
    return changes / (len(letters) - 1) >= least and _entropy(letters) >= LEAST_ENTROPY


def _if_random(found: re.Match[str]) -> str:
    word = found[0]
    if "/" not in word:
        return MASK if is_random(word) else word
    parts = word.split("/")
    # Hashes in the names of files are of one case.
    told = [MASK if is_random(p) and p != p.lower() else p for p in parts]
    if told != parts:
        return "/".join(told)
    is_path = found.start() > 0 and found.string[found.start() - 1] in ".:~"
    return MASK if not is_path and word != word.lower() and is_random(word) else word


def _entropy(letters: str) -> float:
    shares = (count / len(letters) for count in Counter(letters).values())
    return -sum(share * math.log2(share) for share in shares)
