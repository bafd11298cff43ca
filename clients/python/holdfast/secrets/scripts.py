"""Scripts as a shell reads them: which words make up each command, and what is piped into it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from holdfast.secrets.blobs import MASK
from holdfast.secrets.programs import reads_secret

_TOKEN = re.compile(
    r"(?P<comment>(?<!\S)\#[^\n]*)"
    r"|(?P<here><<<)"
    r"|(?P<document><<-?[ \t]*(?P<quote>['\"]?)(?P<tag>\w+)(?P=quote))"
    r"|(?P<end>\|\||&&|;|\n|(?<![<>])&(?!>)|\$\(|[()`])"
    r"|(?P<pipe>\|&?)"
    r"|(?P<word>(?:\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|\$(?!\()|[^\s;|&()`<>'\"\\$]|&>|>&|<&|<(?!<)|>)+)"
    r"|(?P<blank>\s+)|(?P<other>.)",
    re.DOTALL,
)
# What may stand before a program.
_LEADING = re.compile(
    r"[A-Za-z_]\w*\+?=.*|[{!]|then|do|else|elif|if|while|until|time|exec|command|builtin"
)
_SAYS = frozenset({"echo", "printf", "print"})
_BARE = re.compile(r"[\w@%+=:,./*-]+")
_INNER = re.compile(r"\$\((?P<script>[^()]*)\)")

Replace = Callable[[Sequence[str]], list[str]]


class _Word(NamedTuple):
    start: int
    end: int
    value: str


class _Command:
    """Words, and whether a secret is fed to them from within the script."""

    def __init__(self) -> None:
        self.words: list[_Word] = []
        self.fed: list[tuple[int, int]] = []

    @property
    def values(self) -> list[str]:
        return [word.value for word in self.words]


def replaced(text: str, replace: Replace) -> str:
    """The script, its commands' words replaced: what a command is fed as a secret is masked."""
    changes: list[tuple[int, int, str]] = []
    for pipeline in _pipelines(text):
        is_read = False
        for command in reversed(pipeline):
            is_read = is_read or reads_secret(command.values)
            words = command.words
            for word in words:
                if (inner := _in_quotes(text[word.start : word.end], replace)) is not None:
                    changes.append((word.start, word.end, inner))
            while words and _LEADING.fullmatch(words[0].value):
                words = words[1:]
            values = [word.value for word in words]
            told = replace(values)
            if is_read and values[:1] and values[0] in _SAYS:
                told = [v if not n or v.startswith("-") else MASK for n, v in enumerate(values)]
            for word, new in zip(words, told, strict=True):
                if new != word.value:
                    changes.append((word.start, word.end, _quoted(new)))
            if is_read:
                changes += [(start, end, f"{MASK}\n") for start, end in command.fed]
    # Of two changes of one word the last counts.
    for (start, end), new in sorted({(s, e): n for s, e, n in changes}.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _pipelines(text: str) -> Iterator[list[_Command]]:
    pipeline = [_Command()]
    documents: list[tuple[_Command, str]] = []
    here = False
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None
        at = found.end()
        kind = found.lastgroup if found.lastgroup not in ("quote", "tag") else "document"
        if kind == "here":
            here = True
        elif kind == "document":
            documents.append((pipeline[-1], found["tag"]))
        elif kind == "word":
            if here:
                # It is replaced as any word is that follows <<<.
                pipeline[-1].words.append(_Word(found.start(), found.start(), "<<<"))
                here = False
            pipeline[-1].words.append(_Word(found.start(), at, _value(found[0])))
        elif kind == "pipe":
            pipeline.append(_Command())
        elif kind == "end":
            if found[0] == "\n":
                for command, tag in documents:
                    end = re.compile(rf"^\t*{tag}$", re.MULTILINE).search(text, at)
                    until = end.start() if end else len(text)
                    command.fed.append((at, until))
                    at = until + (len(end[0]) if end else 0)
                documents = []
            yield pipeline
            pipeline = [_Command()]
    yield pipeline


def _value(word: str) -> str:
    try:
        return "".join(shlex.split(word, comments=False)) or word
    except ValueError:
        return word


def _in_quotes(word: str, replace: Replace) -> str | None:
    """A word with the commands replaced that stand in its quotes; ``None`` if nothing changed."""
    if '"' not in word or "$(" not in word:
        return None
    new = _INNER.sub(lambda found: f"$({replaced(found['script'], replace)})", word)
    return new if new != word else None


def _quoted(word: str) -> str:
    return word if _BARE.fullmatch(word) else shlex.quote(word)
