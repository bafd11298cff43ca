"""What a supervisor waits for, and the signals among it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from holdfast.outcome import Outcome
from holdfast.process import hears_keys, is_job

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)
# The terminal sends them to the command too: they are typed.
TYPED = (signal.SIGINT, signal.SIGQUIT)


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


Happening = Exited | Signalled | Fenced | RestartAsked


@contextmanager
def signals_to(tell: Callable[[Signalled], None]) -> Iterator[None]:
    """Within the block signals are told. Those that are ignored (``nohup``) stay so."""

    def handle(number: int, frame: FrameType | None) -> None:
        tell(Signalled(number, number in TYPED and hears_keys()))

    before = {number: signal.getsignal(number) for number in (*STOPPING, *PASSED_ON)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handle)
    if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL and not is_job():
        # Nobody would wake it up again.
        before[signal.SIGTSTP] = signal.SIG_DFL
        heard.append(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, lambda *_: None)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
