"""How a command ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass

NOT_EXECUTABLE = 126
NOT_FOUND = 127


@dataclass(frozen=True)
class Outcome:
    """``exit_code`` as a shell tells it: 128 + the number of the signal that ended the command."""

    exit_code: int
    signal: str | None = None
    seconds: float = 0.0
    reason: str | None = None

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
        """Whether it ended well."""
        return self.exit_code == 0

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return f"exited with {self.exit_code}"
