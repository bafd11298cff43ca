"""Hears signals, and tells those that were typed at the terminal from those that somebody sent.

A signal handler of Python's is not told who sent a signal. Whoever waits for one is: so the signals
are blocked in all threads but one, which waits for them (Linux).
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from holdfast.process import hears_keys

# The terminal sends them to the command too: they are typed.
TYPED = (signal.SIGINT, signal.SIGQUIT)
# What stands in between (npm, a script) hands on at once what it heard from the terminal itself.
HANDED_ON_SECONDS = 0.5
# What the system sends itself, as the terminal does, and what a process sends.
_FROM_SYSTEM = 0x80
_FROM_PROCESS = frozenset({0, -1, -6})

Tell = Callable[[int, bool, float], None]


@contextmanager
def heard(numbers: Iterable[int], tell: Tell) -> Iterator[None]:
    """Within the block ``tell(number, typed, at)`` is called, in the main thread, for each signal
    that comes. ``typed``: a key made it, so all in the foreground had it; ``at`` is a monotonic
    time. Call it in the main thread.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        tell(number, number in TYPED and hears_keys(), time.monotonic())

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        if hasattr(signal, "sigwaitinfo"):
            with _Listener(before, tell):
                yield
        else:
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear_nothing() -> None:
    """This thread is not one to interrupt: signals go to others. Where there are such."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


class _Listener:
    """A thread that waits for signals, and wakes up the main thread to tell of them."""

    def __init__(self, numbers: Iterable[int], tell: Tell) -> None:
        self._numbers = {*numbers}
        self._tell = tell
        self._heard: deque[tuple[int, bool, float]] = deque()
        self._typed_at: dict[int, float] = {}
        self._over = False
        # Ignored unless someone listens to it, as nobody does here.
        self._wake = signal.SIGURG

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        self._numbers -= self._before
        self._main = threading.get_ident()
        self._handler = signal.signal(self._wake, self._hand_over)
        self._thread = threading.Thread(target=self._run, name="holdfast-signals", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over = True
        signal.pthread_kill(self._thread.ident or 0, self._wake)
        self._thread.join()
        # What came meanwhile is handled now, in the usual way.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
        signal.signal(self._wake, self._handler)
        self._hand_over()

    def _run(self) -> None:
        hear_nothing()
        while not self._over:
            info = signal.sigwaitinfo({*self._numbers, self._wake})
            if info.si_signo != self._wake:
                at = time.monotonic()
                is_typed = self._is_typed(info.si_signo, info.si_code, at)
                self._heard.append((info.si_signo, is_typed, at))
                signal.pthread_kill(self._main, self._wake)

    def _is_typed(self, number: int, code: int, now: float) -> bool:
        if number not in TYPED:
            return False
        if code not in _FROM_PROCESS:
            is_typed = code == _FROM_SYSTEM or hears_keys()
        else:
            is_typed = now - self._typed_at.get(number, float("-inf")) < HANDED_ON_SECONDS
        if is_typed:
            self._typed_at[number] = now
        return is_typed

    def _hand_over(self, *_: object) -> None:
        while self._heard:
            self._tell(*self._heard.popleft())
