"""What a supervisor waits for, and the signals among it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast.hearing import heard
from holdfast.outcome import Outcome
from holdfast.process import is_job

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Exited:
    """The command ended, ``at`` this (monotonic) time."""

    outcome: Outcome
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Signalled:
    """A signal came; ``typed`` if the command had it from the terminal already."""

    number: int
    typed: bool
    at: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        if self.typed:
            return "Ctrl-C" if self.number == signal.SIGINT else "Ctrl-\\"
        return signal.Signals(self.number).name


@dataclass(frozen=True)
class Fenced:
    """The work is someone else's now."""

    why: str


@dataclass(frozen=True)
class RestartAsked:
    """The service wants the command to be started again."""


@dataclass(frozen=True)
class Answered:
    """What was asked of the service is known: whether the command may be started again."""

    may_restart: bool


Happening = Exited | Signalled | Fenced | RestartAsked | Answered


@contextmanager
def signals_to(tell: Callable[[Signalled], None]) -> Iterator[frozenset[int]]:
    """Within the block signals are told. Those that are ignored (``nohup``) stay so.

    Gives those that were blocked before, as they are to be in what is started meanwhile.
    """
    blocked = frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    stops = signal.getsignal(signal.SIGTSTP)
    numbers = [n for n in (*STOPPING, *PASSED_ON) if signal.getsignal(n) is not signal.SIG_IGN]
    if stops is signal.SIG_DFL and not is_job():
        # Nobody would wake it up again.
        signal.signal(signal.SIGTSTP, lambda *_: None)
    try:
        with heard(numbers, lambda number, typed, at: tell(Signalled(number, typed, at))):
            yield blocked
    finally:
        signal.signal(signal.SIGTSTP, stops)
