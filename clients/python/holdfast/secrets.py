"""Secrets do not belong on the record: what has the form or the name of one is masked.

What is recorded is kept for ever and read by many. It is better to mask too much than too little: a
command line on record is there for people to recognise it, not to be run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

MASK = "***"
# What is longer is not looked at, and not recorded.
LONGEST = 4_000

# Tokens that can be told by their form, wherever they stand.
_FORMS = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY"
    r".*?(?:-----END [A-Z0-9 ]{0,20}PRIVATE KEY[A-Z ]{0,6}-----|$)"
    r"|AGE-SECRET-KEY-1[A-Z0-9]+"
    r"|(?<![A-Za-z0-9])(?:"
    r"sk-(?:ant|proj|svcacct|admin|or|lf)-[\w-]{4,}"
    r"|sk-(?=[\w-]*\d)[\w-]{8,}|sk-[A-Za-z]{20,}"
    r"|[srp]k_(?:live|test)_\w{8,}"
    r"|gh[pousr]_\w{8,}|github_pat_\w{8,}|gl(?:pat|ptt|dt|rt|cbt|soat)-[\w-]{8,}"
    r"|xox[a-z](?:\.xox[a-z])?-[\w-]{6,}|xapp-[\w-]{8,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"
    r"|eyJ[\w-]{8,}(?:\.[\w-]*){0,4}"
    r"|hf_[\w-]{8,}|npm_\w{16,}|pypi-[\w-]{16,}|dckr_(?:pat|oat)_[\w-]{8,}"
    r"|AIza[\w-]{20,}|ya29\.[\w-]{8,}|GOCSPX-[\w-]{8,}"
    r"|(?:gsk|r8|nvapi|pplx|xai|tvly|csk|fw|lin_api|ntn|secret|shp(?:at|ca|pa|ss)|dop_v1|doo_v1"
    r"|whsec|rpa|sbp|vcp|phc|phx|dapi|figd|rubygems)[_-](?=[\w-]*\d)[\w-]{16,}"
    r"|SG\.[\w-]{8,}\.[\w-]{8,}|hv[sbr]\.[\w-]{12,}|tskey-[\w-]{8,}|ATATT[\w=-]{16,}"
    r"|\d{8,10}:AA[\w-]{30,}"
    r")",
    re.DOTALL,
)
_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'[^']*'"
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s/:@'\"]*):(?!\d+/)[^\s@'\"]+@"
)
_URL_USER = re.compile(r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^\s/:@'\"]{20,}@")
_SCHEME = re.compile(r"(?i)\b(?P<scheme>bearer|basic)\s+(?=[^\s'\"]*[\d=_.-])[\w.~+/=:-]{6,}")
_HEADER = re.compile(
    r"(?i)(?<![\w-])(?P<name>[\w-]{0,60}(?:authorization|token|api-?key|secret|password|passwd|cookie))"
    r"(?P<between>[\"']?\s*:\s*)(?P<scheme>(?:bearer|basic|token|digest|apikey)\s+)?"
    rf"(?P<value>{_QUOTED}|[^\s\"',}}]+)"
)
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?P<name>[A-Za-z_][\w.-]{{0,80}})(?P<between>\s?[=]\s?)(?P<value>{_QUOTED}|[^\s&;|\"']+)"
)
_OPTION = re.compile(
    rf"(?P<name>(?<![\w-])--?[A-Za-z][\w-]{{2,}})(?P<between>=|\s+)(?P<value>{_QUOTED}|[^\s;|\"'-][^\s;|\"']*)"
)
_WHOLE_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]{2,})")
_WHOLE_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.+)", re.DOTALL)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG = re.compile(r"(?:secrets?|passw(?:or)?ds?|passphrase|pwd|apikey|credentials?|bearer|jwt)")
_LAST = re.compile(r"(?:token|key|pat|auth|authorization|cookie|pass|signature|sig)")
# It is called after a secret, but is something about it.
_ABOUT = re.compile(
    r"file|path|dir|folder|names?|ids?|ur[il]|limit|length|count|type|ttl|policy|env|var|stdin"
    r"|prompt|helper|command|cmd|store|hash|field|header|algorithm|size|expiry|ring|board"
)
_WITH_COLON = frozenset({"-u", "--user", "--proxy-user", "-U"})
_SHORT = {"sshpass": "-p", "mysql": "-p", "mysqldump": "-p", "mysqladmin": "-p", "mariadb": "-p"}


def masked(text: str) -> str:
    """The text without the secrets that it may hold: an error's message, a script, a path."""
    text = _FORMS.sub(MASK, text[:LONGEST])
    text = _URL_PASSWORD.sub(rf"\g<before>:{MASK}@", text)
    text = _URL_USER.sub(rf"\g<before>{MASK}@", text)
    text = _HEADER.sub(lambda m: f"{m['name']}{m['between']}{m['scheme'] or ''}{MASK}", text)
    text = _SCHEME.sub(rf"\g<scheme> {MASK}", text)
    text = _ASSIGNED.sub(_if_named, text)
    return _OPTION.sub(_if_named, text)


def masked_command(command: Sequence[str]) -> list[str]:
    """The command's arguments without the secrets among them; the first few thousand letters."""
    program = os.path.basename(command[0]) if command else ""
    found: list[str] = []
    room = LONGEST
    for argument in _masked(command, _SHORT.get(program)):
        found.append(argument[:room])
        room -= len(argument) + 1
        if room <= 0:
            break
    return found


def _masked(command: Sequence[str], short: str | None) -> Iterator[str]:
    follows = has_colon = False
    for argument in command:
        if follows and not argument.startswith("--"):
            follows = False
            yield MASK
            continue
        if has_colon and _names_user(argument):
            yield f"{argument.partition(':')[0]}:{MASK}"
            has_colon = False
            continue
        option = _WHOLE_OPTION.fullmatch(argument)
        follows = (option is not None and _says(option["name"])) or argument == short == "-p"
        has_colon = argument in _WITH_COLON
        assigned = _WHOLE_ASSIGNMENT.fullmatch(argument)
        if assigned is not None and _says(assigned["name"]):
            yield f"{assigned['name']}={MASK}"
        elif short is not None and argument.startswith(short) and argument != short:
            yield f"{short}{MASK}"
        else:
            yield masked(argument)


def _names_user(argument: str) -> bool:
    """``user:password``; two numbers are a user's and a group's."""
    user, colon, password = argument.partition(":")
    return bool(colon and password) and not (user.isdigit() and password.isdigit())


def _if_named(found: re.Match[str]) -> str:
    if not _says(found["name"]):
        return found[0]
    return f"{found['name']}{found['between']}{MASK}"


def _says(name: str) -> bool:
    """Whether what has this name is a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[0] == "no" or _ABOUT.fullmatch(words[-1]):
        return False
    whole = "".join(words)
    return (
        any(_STRONG.fullmatch(word) for word in words)
        or _LAST.fullmatch(words[-1]) is not None
        or re.search(rf"(?:{_STRONG.pattern}|token|apikey)$", whole) is not None
    )
