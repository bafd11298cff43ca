"""Whether something is a secret by what it is called."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG = re.compile(
    r"(?:secrets?|passw(?:or)?ds?|passphrase|passin|passout|pwd?|apikey|creds?|credentials?|bearer|jwt"
    r"|passcodes?|mnemonic|otp|totp)"
)
# `keypass`, and not `compass`.
_PASS = re.compile(r"(?!by|com|encom|sur|tres|over|under)[a-z]+pass")
_LAST = re.compile(
    r"(?:tok|token|key|pat|auth|authorization|cookie|pass|signature|sig|pin|puk|2fa)"
)
# A number or a few words that let in, once or for ever.
_CODE = re.compile(
    r"(?:mfa|tfa|2fa|otp|auth|backup|recovery|verification|security|access|device|pin|pass|login)codes?"
    r"|(?:seed|recovery|secret|backup)(?:phrase|words)"
)
# It is called after a secret, but is something about it.
_ABOUT = re.compile(
    r"file|path|dir|folder|names?|ids?|ur[il]|limit|length|count|type|ttl|policy|env|var|stdin"
    r"|prompt|helper|command|cmd|store|hash|field|header|algorithm|size|expiry|ring|board"
)
# Keys that open nothing.
_OF_DATA = re.compile(
    r"(?:sort|primary|foreign|partition|cache|idempotency|public|index|group|join|row|item|unique"
    r"|host|hot|map|order|range|shard|dedup|routing)key"
)
# What may be said about a key or of how one is let in, and is neither.
_NO_KEY = re.compile(
    r"[\d.,:-]{1,6}|none|basic|digest|oauth2?|ntlm|negotiate|true|false|yes|no|on|off|auto"
    r"|len|lambda|str(?:\.lower)?|name|id|value|enter|return|tab|escape|space"
)
_WEAK = re.compile(r"(?:key|auth|signature|sig)")
# Of pins on a board there are fewer than a thousand.
SHORTEST_PIN = 4


def is_secret(name: str, value: str) -> bool:
    """Whether this is called a secret, and can be one."""
    if not says(name):
        return False
    words = _words(name)
    if words[-1] == "pin":
        return len(value.strip("\"'")) >= SHORTEST_PIN
    return (
        _WEAK.fullmatch("".join(words)) is None
        or _NO_KEY.fullmatch(value.lower().rstrip(")")) is None
    )


def says(name: str) -> bool:
    """Whether what has this name is a secret."""
    words = _words(name)
    if len(words) > 1 and words[-1] in ("value", "val"):
        words.pop()
    if not words or words[0] == "no" or _ABOUT.fullmatch(words[-1]):
        return False
    whole = "".join(words)
    if _OF_DATA.fullmatch("".join(words[-2:])):
        return False
    return (
        any(_STRONG.fullmatch(word) for word in words)
        or _LAST.fullmatch(words[-1]) is not None
        or _PASS.fullmatch(words[-1]) is not None
        or _CODE.fullmatch("".join(words[-2:])) is not None
        or re.search(
            rf"(?:{_STRONG.pattern}|token|(?:api|auth|access|secret|private|license)key|2fa)$",
            whole,
        )
        is not None
    )


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
