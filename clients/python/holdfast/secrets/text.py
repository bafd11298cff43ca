"""Secrets in a text of any kind: an error's message, an argument, a prompt, a script.

They are told by their form, and by what stands before them. Prose about them stays.
"""

from __future__ import annotations

import re

from holdfast.secrets.blobs import MASK, masked_blobs
from holdfast.secrets.names import is_secret, says
from holdfast.secrets.programs import RULES

# What is longer is not looked at, and not recorded.
LONGEST = 4_000

# Tokens that can be told by their form, wherever they stand.
_FORMS = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|$)"
    r"|AGE-SECRET-KEY-1[A-Z0-9]+|op://[^\s'\"]+"
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
    r"|\d{8,10}:AA[\w-]{30,}|sha256~[\w-]{20,}|PMAK-[\w-]{16,}|sq0(?:atp|csp|idp)-[\w-]{8,}"
    r"|dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{8,}|\w{14}\.atlasv1\.[\w-]{8,}|glsa_\w{8,}|glc_[\w=]{8,}"
    r"|sntry[su]_[\w=/+-]{8,}|xkeysib-[\w-]{8,}|pscale_(?:tkn|pw|oauth)_[\w.-]{8,}|AT(?:CTT|BB)[\w=-]{8,}"
    r"|(?:rnd|nfp|bkua|CCIPAT|pul|waka|sgp|shippo_(?:live|test)|EZ[AT]K|NRAK|LTAI|key)[_-]?"
    r"(?=[\w-]*\d)[\w-]{20,}|1//0[\w-]{20,}"
    r")",
    re.DOTALL,
)
# Whole words as a shell reads them, and what stands in quotes within quotes.
_QUOTED = r"\\*\"(?:\\[^\"]|[^\"\\])*\\*\"|'[^']*'"
_PIECE = rf"{_QUOTED}|\$\([^)]*\)|\\.|(?!,[A-Za-z_][\w.-]*=)[^\s;|&\"'\\]"
_VALUE = rf"(?:{_PIECE})+"
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s/:@'\"]*):(?!\d+/)[^\s@'\"]+@(?:[^\s@/'\"]*@)*"
)
_URL_USER = re.compile(r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^\s/:@'\"]{16,}@")
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
    r"(?i)(?<![\w.-])(?P<name>x-[\w-]{0,40}(?:auth|session|signature|jwt|pass|key)|[\w.-]{0,60}(?:authorization|token|(?:api|secret|access|private|account)[_-]?key"
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
_SHORT_VALUE = re.compile(rf"(?P<blank>\s*)(?!-){_VALUE}")
_SHORT_IN_SCRIPT = re.compile(
    "|".join(
        rf"(?:(?<![\w.-]){re.escape(program)}\s(?:[^|;&\n]*?\s)?(?:{'|'.join(short)}))"
        for rule in RULES
        if (
            short := [
                re.escape(one) for one in rule.options.split() if re.fullmatch("-[a-zA-Z]", one)
            ]
        )
        for program in rule.programs.split()
        if program != "*" and not rule.after
    )
    + r"|(?<![\w.-])\w+\slogin\s(?:[^|;&\n]*?\s)?-p"
)
# A key in place of a name and a password.
_URL_KEY = re.compile(
    r"(?P<before>\bhttps?://)(?:[^\s/:@'\"]{16,}(?=:\*)|[^\s/:@'\"]+(?=:@)|"
    r"[^\s/:@'\"]+:(?:x-oauth-basic|x|api)(?=@))"
)
_URL_CODE = re.compile(r"(?P<before>[?&#;](?:code|s|t|st|sid|session)=)(?=[^&\s]*\d)[^&\s'\"#]{8,}")
_SQL = re.compile(
    r"(?i)(?P<before>\b(?:identified\s+(?:with\s+\S+\s+)?(?:by|as)|password|passphrase|secret)(?:\s*\(\s*|\s+))"
    r"(?:'[^']+'|\"[^\"]+\")"
)
# `auth=("me", "…")`, `send "…\r"` of expect.
_LOGIN = re.compile(r"(?P<before>\bauth\s*=\s*)\((?P<value>[^()]*,[^()]*)\)")
_TYPED = re.compile(r"(?P<before>\bsend(?:_user)?\s+(?:--\s+)?)\"[^\"]*(?:\\+[rn])\"")
_PLAIN_TEXT = re.compile(
    r"(?i)(?P<before>convertto-securestring\s+(?:-\w+\s+)*)(?:'[^']*'|\"[^\"]*\"|[^\s-]\S*)"
)
_NETRC = re.compile(r"(?P<before>\b(?:login|user)\s+\S+\s+password\s+)\S+")
_PROXY = re.compile(
    r"(?P<before>(?<!\S)(?:--proxy|--preproxy|-x)[= ]['\"]?[^\s:/@'\"]+:)[^\s/@'\"]+@"
)
_THIN = re.compile(r"(?P<before>\bjdbc:[\w:]+:[^\s/@:]+/)[^\s@]+(?=@)")
_OPEN = re.compile(r"(?P<before>\b(?:open|lftp)\s+(?:\S+\s+)*?-u\s+[^\s,]+,)[^\s\"']+")


def masked(text: str) -> str:
    """The text without the secrets that it may hold: an error's message, a script, a path."""
    text = _FORMS.sub(MASK, text[:LONGEST])
    text = _URL_KEY.sub(rf"\g<before>{MASK}", text)
    text = _URL_PASSWORD.sub(rf"\g<before>:{MASK}@", text)
    text = _URL_KEY.sub(rf"\g<before>{MASK}", text)
    text = _URL_USER.sub(rf"\g<before>{MASK}@", text)
    text = _URL_CODE.sub(rf"\g<before>{MASK}", text)
    text = _URL_HOOK.sub(rf"\g<before>{MASK}", text)
    for form in (_SQL, _LOGIN, _TYPED, _PLAIN_TEXT, _NETRC, _OPEN, _THIN):
        text = form.sub(rf"\g<before>{MASK}", text)
    text = _PROXY.sub(rf"\g<before>{MASK}@", text)
    text = _PIPED.sub(rf"\g<before>{MASK}", text)
    text = _WHOLE_HEADER.sub(rf"\g<before>{MASK}", text)
    text = _HEADER.sub(lambda m: f"{m['name']}{m['between']}{m['scheme'] or ''}{MASK}", text)
    text = _SCHEME.sub(rf"\g<scheme> {MASK}", text)
    text = _PROSE.sub(rf"\g<before>{MASK}", text)
    text = _USER.sub(_if_password, text)
    text = _ELEMENT.sub(lambda m: f"{m['before']}{MASK}" if says(m["name"]) else m[0], text)
    text = _in_scripts(text)
    for form in (_FIELD, _SET, _ASSIGNED, _OPTION):
        text = _named_ones(form, text)
    return masked_blobs(text)


def _named_ones(form: re.Pattern[str], text: str) -> str:
    """What is called a secret is masked; what is not may hold some of its own."""
    found: list[str] = []
    at = 0
    while (match := form.search(text, at)) is not None:
        found.append(text[at : match.end()])
        at = match.end()
        if not says(match["name"]):
            continue
        value = _HERE.match(text, at)
        if value is not None and is_secret(match["name"], value[0]):
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


def _if_password(found: re.Match[str]) -> str:
    if found["user"].isdigit() and found["value"].isdigit():
        return found[0]
    return f"{found['before']}{MASK}"
