"""How a command ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass

NOT_EXECUTABLE = 126
NOT_FOUND = 127


@dataclass(frozen=True)
class Outcome:
    """``exit_code`` as a shell tells it: 128 + the number of the signal that ended the command.

    ``interrupted`` is what made it end (``SIGTERM``, ``a closed terminal``), if it did not end of
    its own accord: many agents exit with 0 all the same, in the middle of their work. ``handed_on``
    are the processes in which it left its work, when it returned at once.
    """

    exit_code: int
    signal: str | None = None
    seconds: float = 0.0
    reason: str | None = None
    interrupted: str | None = None
    handed_on: tuple[str, ...] = ()

    @classmethod
    def of(cls, returncode: int, seconds: float) -> Outcome:
        """From what ``subprocess`` tells."""
        if returncode >= 0:
            return cls(returncode, None, seconds)
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        return cls(128 - returncode, name, seconds)

    @property
    def is_success(self) -> bool:
        """Whether it ended well, and of its own accord."""
        return self.exit_code == 0 and self.interrupted is None

    @property
    def completes(self) -> bool:
        """Whether what it worked on is done, as far as that can be told from its end."""
        return self.is_success and not self.handed_on

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason
        if self.interrupted is not None and self.signal is None:
            return f"was interrupted by {self.interrupted} and exited with {self.exit_code}"
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return f"exited with {self.exit_code}"
