"""Secrets do not belong on the record: what has the form or the name of one is masked.

What is recorded is kept for ever and read by many. It is better to mask too much than too little: a
command line on record is there for people to recognise it, not to be run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

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
# Whole words as a shell reads them, and what stands in quotes within quotes.
_QUOTED = r"\\*\"(?:\\[^\"]|[^\"\\])*\\*\"|'[^']*'"
_PIECE = rf"{_QUOTED}|\$\([^)]*\)|\\.|(?!,[A-Za-z_][\w.-]*=)[^\s;|&\"'\\]"
_VALUE = rf"(?:{_PIECE})+"
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s/:@'\"]*):(?!\d+/)[^\s@'\"]+@"
)
_URL_USER = re.compile(r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^\s/:@'\"]{20,}@")
_URL_HOOK = re.compile(
    r"(?P<before>hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
    r"|\.webhook\.office\.com/|api\.telegram\.org/bot)[^\s'\"]+"
)
_SCHEME = re.compile(r"(?i)\b(?P<scheme>bearer|basic)\s+(?=[^\s'\"]*[\d=_.-])[\w.~+/=:-]{6,}")
# Headers that are secret to their end, whatever blanks they hold.
_WHOLE_HEADER = re.compile(
    r"(?i)(?P<before>(?<![\w-])(?:(?:set-)?cookie[\"']?\s*:\s*"
    r"|[\w-]{0,20}authorization[\"']?\s*:\s*(?:digest|aws4-hmac-sha256|hawk|oauth|signature)\s+))"
    r"(?:\\.|[^'\n\\])+"
)
_HEADER = re.compile(
    r"(?i)(?<![\w.-])(?P<name>[\w.-]{0,60}(?:authorization|token|(?:api|secret|access|private|account)[_-]?key"
    r"|secret|password|passwd|passphrase|credentials?|cookie))"
    r"(?P<between>\\*[\"']?\s*:=?\s*)(?P<scheme>(?:bearer|basic|token|digest|apikey)(?:\\?\s)+)?"
    rf"(?P<value>(?:{_QUOTED}|\\.|[^\s\"',}}\\])+)"
)
# Up to where the value of what is named begins.
_FIELD = re.compile(r"\\*[\"'](?P<name>[A-Za-z_][\w.-]{0,80})\\*[\"']\s*:\s*(?=\\*[\"'])")
_ASSIGNED = re.compile(
    r"(?<![\w.-])(?P<name>[A-Za-z_][\w.-]{0,80})(?:[\"']?\])?(?:\s?=\s?|%3[Dd])(?=\S)"
)
_OPTION = re.compile(r"(?P<name>(?<![\w-])--?[A-Za-z][\w-]{1,80})(?:=|(?:\\?\s)+(?!-))(?=\S)")
_SET = re.compile(r"\b(?:setenv|set\s+-\w+)\s+(?P<name>[A-Za-z_]\w*)\s+(?=\S)")
_HERE = re.compile(_VALUE, re.DOTALL)
_ELEMENT = re.compile(r"(?P<before><(?P<name>[A-Za-z_][\w.-]{0,80})>)[^<]+(?=</)")
_PIPED = re.compile(
    rf"(?P<before>\b(?:echo|printf)\s+(?:-\w+\s+|['\"]?%s\S*\s+)*){_VALUE}"
    r"(?=\s*\|[^|;&]*(?:--(?:password|pass|token)-?stdin|--with-token|--passphrase-fd|\bsudo\s+-S))"
)
_PROSE = re.compile(
    r"(?i)(?P<before>\b(?:password|passphrase|passwd|api[ -]key|secret|token)\b"
    r"(?:\s+is\b|\s*[:=])?\s+[\"'`]?)"
    r"(?=[^\s\"'`/]*\d)(?=[^\s\"'`/]*[a-z])[^\s\"'`/]{8,}"
)
_USER = re.compile(
    r"(?P<before>(?<!\S)(?:-u|-U|--user|--proxy-user)(?:\s+|=)?[\"']?(?P<user>[^\s:%@/\"'=-][^\s:%/\"'=]*)[:%])"
    r"(?P<value>[^\s/\"'][^\s\"']*)"
)
_WHOLE_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]+)")
_WHOLE_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.+)", re.DOTALL)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG = re.compile(
    r"(?:secrets?|passw(?:or)?ds?|passphrase|passin|passout|pwd?|apikey|creds?|credentials?|bearer|jwt"
    r"|passcodes?|mnemonic|otp|totp)"
)
_LAST = re.compile(r"(?:token|key|pat|auth|authorization|cookie|pass|signature|sig)")
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
_WITH_COLON = frozenset({"-u", "--user", "--proxy-user", "-U"})
_MYSQL = ("-p",)
# Options of one letter that are followed by a secret, in a word of its own or in the same.
_SHORT: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("mysql", "mysqldump", "mysqladmin", "mysqlsh", "mariadb"), _MYSQL),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore", "mongoimport"), ("-p",)),
    **dict.fromkeys(("zip", "unzip", "zipcloak", "ipmitool", "sqlcmd"), ("-P",)),
    **dict.fromkeys(("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"), ("-w",)),
    **dict.fromkeys(("7z", "7za", "7zz", "rar", "unrar"), ("-p",)),
    **dict.fromkeys(("http", "https", "xh", "xhs", "redis-cli"), ("-a",)),
    "sshpass": ("-p",),
    "curl": ("-b",),
    "openssl": ("-k", "-K"),
}
# Of whatever has this among its arguments: `docker login`, `gh secret set`.
_OF_LOGIN = ("-p",)
_OF_SECRETS = ("-b", "--body", "--secret-string", "--from-literal")
_SHORT_VALUE = re.compile(rf"(?P<blank>\s*)(?!-){_VALUE}")
_SHORT_IN_SCRIPT = re.compile(
    "|".join(
        rf"(?:(?<![\w.-]){re.escape(program)}\s(?:[^|;&\n]*?\s)?(?:{'|'.join(options)}))"
        for program, options in _SHORT.items()
    )
    + r"|(?<![\w.-])\w+\slogin\s(?:[^|;&\n]*?\s)?-p"
)


def masked(text: str) -> str:
    """The text without the secrets that it may hold: an error's message, a script, a path."""
    text = _FORMS.sub(MASK, text[:LONGEST])
    text = _URL_PASSWORD.sub(rf"\g<before>:{MASK}@", text)
    text = _URL_USER.sub(rf"\g<before>{MASK}@", text)
    text = _URL_HOOK.sub(rf"\g<before>{MASK}", text)
    text = _PIPED.sub(rf"\g<before>{MASK}", text)
    text = _WHOLE_HEADER.sub(rf"\g<before>{MASK}", text)
    text = _HEADER.sub(lambda m: f"{m['name']}{m['between']}{m['scheme'] or ''}{MASK}", text)
    text = _SCHEME.sub(rf"\g<scheme> {MASK}", text)
    text = _PROSE.sub(rf"\g<before>{MASK}", text)
    text = _USER.sub(_if_password, text)
    text = _ELEMENT.sub(lambda m: f"{m['before']}{MASK}" if _says(m["name"]) else m[0], text)
    text = _in_scripts(text)
    for form in (_FIELD, _SET, _ASSIGNED, _OPTION):
        text = _named_ones(form, text)
    return text


def _named_ones(form: re.Pattern[str], text: str) -> str:
    """What is called a secret is masked; what is not may hold some of its own."""
    found: list[str] = []
    at = 0
    while (match := form.search(text, at)) is not None:
        found.append(text[at : match.end()])
        at = match.end()
        if not _says(match["name"]):
            continue
        value = _HERE.match(text, at)
        if value is not None and _is_secret(match["name"], value[0]):
            found.append(MASK)
            at = value.end()
    return "".join(found) + text[at:]


def _in_scripts(text: str) -> str:
    """Programs whose secrets follow an option of one letter."""
    found: list[str] = []
    at = 0
    while (match := _SHORT_IN_SCRIPT.search(text, at)) is not None:
        found.append(text[at : match.end()])
        at = match.end()
        value = _SHORT_VALUE.match(text, at)
        if value is not None:
            found.append(f"{value['blank']}{MASK}")
            at = value.end()
    return "".join(found) + text[at:]


def masked_command(command: Sequence[str]) -> list[str]:
    """The command's arguments without the secrets among them; the first few thousand letters."""
    found: list[str] = []
    room = LONGEST
    for argument in _masked(command):
        found.append(argument[:room])
        room -= len(argument) + 1
        if room <= 0:
            break
    return found


def _masked(command: Sequence[str]) -> Iterator[str]:
    short = _options(command)
    keeps_secrets = _names_secrets(command)
    option: str | None = None
    follows = has_colon = False
    for argument in command:
        if follows and not argument.startswith("--"):
            follows = False
            is_secret = option is None or _is_secret(option, argument)
            yield MASK if is_secret else argument
            continue
        if has_colon and _names_user(argument):
            yield f"{re.split('[:%]', argument)[0]}:{MASK}"
            has_colon = False
            continue
        whole = _WHOLE_OPTION.fullmatch(argument)
        option = whole["name"] if whole is not None and _says(whole["name"]) else None
        follows = option is not None or argument in short
        has_colon = argument in _WITH_COLON
        assigned = _WHOLE_ASSIGNMENT.fullmatch(argument)
        if assigned is not None and (
            keeps_secrets or _is_secret(assigned["name"], assigned["value"])
        ):
            yield f"{_first(assigned['name'], assigned['value'], keeps_secrets)}={MASK}"
        elif (its := _attached(argument, short)) is not None:
            yield f"{its}{MASK}"
        else:
            yield masked(argument)


def _options(command: Sequence[str]) -> tuple[str, ...]:
    """The options of a letter or so that are followed by a secret, of this command."""
    program = os.path.basename(command[0]) if command else ""
    found = (*_SHORT.get(program, ()),)
    if "login" in command[1:3]:
        found += _OF_LOGIN
    return found + _OF_SECRETS if _names_secrets(command) else found


def _names_secrets(command: Sequence[str]) -> bool:
    """`kubectl create secret generic …`, `fly secrets set …`"""
    return any(argument in ("secret", "secrets") for argument in command[1:4])


def _first(name: str, value: str, keeps_secrets: bool) -> str:
    """What stands before the mask: ``--from-literal=name``."""
    inner, equals, _ = value.partition("=")
    return f"{name}={inner}" if keeps_secrets and name == "--from-literal" and equals else name


def _attached(argument: str, short: Sequence[str]) -> str | None:
    """The option of one letter at whose end the secret begins."""
    for its in short:
        if len(its) == 2 and argument.startswith(its) and argument != its:
            return its
    return None


def _names_user(argument: str) -> bool:
    """``user:password``; two numbers are a user's and a group's."""
    user, colon, password = (*re.split("([:%])", argument, maxsplit=1), "", "")[:3]
    return bool(colon and password) and not (user.isdigit() and password.isdigit())


def _if_password(found: re.Match[str]) -> str:
    if found["user"].isdigit() and found["value"].isdigit():
        return found[0]
    return f"{found['before']}{MASK}"


def _is_secret(name: str, value: str) -> bool:
    """Whether this is called a secret, and can be one."""
    if not _says(name):
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return (
        _WEAK.fullmatch("".join(words)) is None
        or _NO_KEY.fullmatch(value.lower().rstrip(")")) is None
    )


def _says(name: str) -> bool:
    """Whether what has this name is a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
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
        or re.search(
            rf"(?:{_STRONG.pattern}|token|(?:api|auth|access|secret|private|license)key)$", whole
        )
        is not None
    )
