"""What a supervisor says, which must neither spoil a command's screen nor be lost under it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

MOST_LINES = 1_000


class Voice:
    """Says lines; while it is held, they go to a file of the run's own, and are said later.

    The file is gone once they were said: what is there is of runs that still go on, or were killed.
    """

    def __init__(self, say: Callable[[str], None], folder: Path) -> None:
        self._say = say
        self.path = folder / f"{os.getpid()}.log"
        self._lock = threading.Lock()
        self._held: list[str] | None = None

    def __call__(self, line: str) -> None:
        """Say this, now or later."""
        with self._lock:
            if self._held is not None:
                if len(self._held) < MOST_LINES:
                    self._held.append(line)
                    self._write(line)
                return
        self._say(line)

    @contextmanager
    def held(self, when: bool) -> Iterator[None]:
        """Within the block nothing is said, what the library warns of included; then all of it."""
        if not when:
            yield
            return
        log, handler = logging.getLogger("holdfast"), _Told(self)
        with self._lock:
            self._held = []
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            with self._lock:
                lines, self._held = self._held or [], None
            for line in lines:
                self._say(line)
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with os.fdopen(os.open(self.path, flags, 0o600), "a", encoding="utf-8") as file:
                file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")


class _Told(logging.Handler):
    """Hands warnings to the voice, as they would have been shown."""

    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self._voice(self.format(record))
