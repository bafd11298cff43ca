"""The secrets among a command's arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from holdfast.secrets import scripts
from holdfast.secrets.blobs import MASK
from holdfast.secrets.names import is_secret, says
from holdfast.secrets.programs import INTERPRETERS, SHELLS, Rule, programs, rules
from holdfast.secrets.text import LONGEST, masked

_OPTION = re.compile(r"--?(?P<name>[A-Za-z0-9][\w.-]+)")
_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.+)", re.DOTALL)
_PAIR = re.compile(r"(?P<name>[^:%,]*)[:%,](?P<secret>[^@]*)(?P<rest>@.*)?", re.DOTALL)
_CALL = re.compile(
    r"(?P<before>(?:system|popen|run|call|check_call|check_output|getoutput|exec(?:Sync)?|shell)\(\s*"
    r"[frb]{0,2}(?P<quote>['\"]))(?P<line>[^'\"]*)(?=(?P=quote))"
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_LIST = re.compile(rf"\[\s*(?:{_QUOTED.pattern})(?:\s*,\s*(?:{_QUOTED.pattern}))*\s*,?\s*\]")
# What goes before the name of a setting that is followed by its value.
_SETS = frozenset({"set", "config", "configure", "connect", "--global", "--add"})
# `--user me:password`, whoever is called.
_WITH_PAIR = frozenset({"-u", "--user", "--proxy-user", "-U"})
# Its own words are looked for within so many.
LONGEST_ACTION = 8
DEEPEST = 5


def masked_command(command: Sequence[str]) -> list[str]:
    """The command's arguments without the secrets among them; the first few thousand letters."""
    found: list[str] = []
    room = LONGEST
    for argument in _masked(command, 0):
        found.append(argument[:room])
        room -= len(argument) + 1
        if room <= 0:
            break
    return found


def masked_script(text: str, depth: int = 0) -> str:
    """A command line as a shell reads it, or a whole script, without its secrets."""
    if depth >= DEEPEST:
        return MASK
    text = scripts.replaced(text[:LONGEST], lambda words: _in_places(words, depth + 1))
    return masked(text)


def _masked(command: Sequence[str], depth: int) -> Iterator[str]:
    places = _in_places(command, depth)
    for at, (argument, replaced) in enumerate(zip(_by_names(command), places, strict=True)):
        yield argument if replaced == command[at] else replaced


def _in_places(words: Sequence[str], depth: int) -> list[str]:
    """The words without what stands where programs take their secrets."""
    found = list(words)
    if not words:
        return found
    starts = [*programs(words)]
    ends = [at for at, _ in starts[1:]] + [len(words)]
    for (start, program), end in zip(starts, ends, strict=True):
        arguments = words[start + 1 : end]
        for rule in rules(program):
            for at, its in _of_rule(rule, arguments):
                found[start + 1 + at] = its
        if program in SHELLS:
            for at, argument in enumerate(arguments, start + 1):
                if re.search(r"\s|<<<", argument):
                    found[at] = masked_script(argument, depth + 1)
        if INTERPRETERS.fullmatch(program):
            for at, argument in enumerate(arguments, start + 1):
                told = _in_calls(argument, depth)
                if told != argument:
                    found[at] = masked(told)
    for at, word in enumerate(words[:-1]):
        if word == "<<<":
            found[at + 1] = MASK
        if _is_setting(words, at):
            found[at + 1] = MASK
    return found


def _in_calls(text: str, depth: int) -> str:
    """``os.system('vault login X')``, ``run(["vault", "login", "X"])``"""

    def a_list(found: re.Match[str]) -> str:
        words = [word[1:-1] for word in _QUOTED.findall(found[0])]
        told = iter(_in_places(words, depth))
        return _QUOTED.sub(lambda word: f"{word[0][0]}{next(told)}{word[0][0]}", found[0])

    text = _CALL.sub(
        lambda found: f"{found['before']}{masked_script(found['line'], depth + 1)}", text
    )
    return _LIST.sub(a_list, text)


def _of_rule(rule: Rule, arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    begin = _behind(rule.after.split(), arguments, 1 if rule.programs == "*" else LONGEST_ACTION)
    if begin is None:
        return
    # Options count wherever they stand.
    options, pairs = rule.options.split(), rule.pairs.split()
    for at, argument in enumerate(arguments):
        for option in options:
            if argument == option and at + 1 < len(arguments):
                if not arguments[at + 1].startswith("--"):
                    yield at + 1, _first(option, arguments[at + 1])
            elif (attached := _attached(argument, option)) is not None:
                yield at, attached
        if at and _takes_pair(arguments[at - 1], pairs) and (its := _pair(argument)) is not None:
            yield at, its
        for option in pairs:
            if len(option) == 2 and argument[:2] == option and (its := _pair(argument)) is not None:
                yield at, its
        if pairs == ["*"] and "@" in argument and (its := _pair(argument)) is not None:
            yield at, its
    words = [at for at in range(begin, len(arguments)) if not _is_plain(arguments[at])]
    if rule.named:
        for at in words:
            name, equals, value = arguments[at].partition("=")
            if equals and value and not name.startswith("-"):
                yield at, f"{name}={MASK}"
    if rule.words is not None:
        for at in words[rule.words :]:
            name, equals, _ = arguments[at].partition("=")
            yield at, f"{name}={MASK}" if equals and name.isidentifier() else MASK


def _behind(action: Sequence[str], arguments: Sequence[str], within: int) -> int | None:
    """Where what follows an action begins; ``None`` if it is another action."""
    if not action:
        return 0
    names = [
        at
        for at, argument in enumerate(arguments)
        if not argument.startswith("-") or argument in action
    ]
    for start in range(min(within, len(names))):
        here = names[start : start + len(action)]
        if [arguments[one].lower() for one in here] == list(action):
            return here[-1] + 1
    return None


def _is_plain(argument: str) -> bool:
    """An option, a file that holds the secret, or standard input."""
    return argument.startswith(("-", "@", "<", ">")) or argument in ("", "true", "false")


def _attached(argument: str, option: str) -> str | None:
    """The argument without the secret that begins where its option ends."""
    its = option.removesuffix("*")
    if not argument.startswith(its) or argument == its:
        return None
    if its != option or len(its) == 2:
        return f"{its}{MASK}"
    rest = argument[len(its) :]
    return f"{its}={_first(its, rest[1:])}" if rest.startswith("=") else None


def _first(option: str, value: str) -> str:
    """What stands before the mask: ``--from-literal=name``."""
    name, equals, _ = value.partition("=")
    return f"{name}={MASK}" if option == "--from-literal" and equals else MASK


def _takes_pair(option: str, pairs: Sequence[str]) -> bool:
    return option in pairs or any(
        # Several of one letter: `curl -su me:password`.
        len(one) == 2 and re.fullmatch(rf"-[a-zA-Z]+{re.escape(one[1])}", option)
        for one in pairs
    )


def _pair(argument: str) -> str | None:
    """``user:***``; two numbers are a user's and a group's, and an address has no secret."""
    if "://" in argument:
        return None
    found = _PAIR.fullmatch(argument)
    if found is None or (found["name"].isdigit() and found["secret"].isdigit()):
        return None
    if not found["secret"]:
        # A key that has no password.
        return f"{MASK}:{found['rest'] or ''}"
    return f"{found['name']}:{MASK}{found['rest'] or ''}"


def _is_setting(words: Sequence[str], at: int) -> bool:
    """``aws configure set aws_secret_access_key X``"""
    name = words[at].rpartition(":")[2]
    return (
        at > 0
        and any(word in _SETS for word in words[:at])
        and re.fullmatch(r"[\w./:-]+", words[at]) is not None
        and not words[at].startswith("-")
        and not words[at + 1].startswith("-")
        and (says(name) or says(name.rpartition(".")[2]))
        and is_secret(name, words[at + 1])
    )


def _by_names(command: Sequence[str]) -> Iterator[str]:
    option: str | None = None
    follows = has_pair = False
    for argument in command:
        if follows and not argument.startswith("--"):
            follows = False
            yield MASK if option is None or is_secret(option, argument) else argument
            continue
        if has_pair and (its := _pair(argument)) is not None and not its.endswith(":"):
            has_pair = False
            yield its
            continue
        whole = _OPTION.fullmatch(argument)
        option = whole["name"] if whole is not None and says(whole["name"]) else None
        follows = option is not None
        has_pair = argument in _WITH_PAIR
        assigned = _ASSIGNMENT.fullmatch(argument)
        if assigned is not None and is_secret(assigned["name"], assigned["value"]):
            yield f"{assigned['name']}={MASK}"
        else:
            yield masked(argument)
