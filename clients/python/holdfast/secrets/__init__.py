"""Secrets do not belong on the record: what has the form or the name of one is masked.

What is recorded is kept for ever and read by many. It is better to mask too much than too little: a
command line on record is there for people to recognise it, not to be run again. It is a best effort
all the same: a secret that looks like any other word cannot be told from one. What must not be
recorded for certain is left out with ``--no-argv``.

A secret is told by its name (:mod:`.names`), by its form and by what stands around it
(:mod:`.text`), by its randomness (:mod:`.blobs`), and by where the programs that people know take
theirs (:mod:`.programs`), on a command line (:mod:`.commands`) or in a script (:mod:`.scripts`).
"""

from __future__ import annotations

from collections.abc import Sequence

# To make the expressions takes some 30 ms: no command pays for it that has nothing to mask.


def masked(text: str) -> str:
    """The text without the secrets that it may hold: an error's message, a path."""
    from holdfast.secrets import text as texts

    return texts.masked(text)


def masked_script(text: str) -> str:
    """A command line as a shell reads it, or a whole script, without its secrets."""
    from holdfast.secrets import commands

    return commands.masked_script(text)


def masked_command(command: Sequence[str]) -> list[str]:
    """The command's arguments without the secrets among them; the first few thousand letters."""
    from holdfast.secrets import commands

    return commands.masked_command(command)
