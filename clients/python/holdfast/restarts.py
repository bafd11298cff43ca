"""Whether, and when, a command that ended is started again (spec 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LIMIT = 3
BACKOFF_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
# Who ran for so long has left its crash loop (spec 17).
STEADY_SECONDS = 600.0

_FORM = re.compile(r"(?P<rule>never|on-failure|always)(:(?P<limit>\d{1,6}))?")


@dataclass(frozen=True)
class RestartPolicy:
    """``never``, ``on-failure[:N]``, ``always[:N]``: at most N restarts in a row (3).

    A run of ten minutes starts the count afresh. ``always`` without a number restarts what ended
    well as often as it ends; its limit is for failures.
    """

    rule: str = "never"
    limit: int = LIMIT
    backoff_seconds: float = BACKOFF_SECONDS
    counts_successes: bool = True

    @classmethod
    def parse(cls, text: str, backoff_seconds: float = BACKOFF_SECONDS) -> RestartPolicy:
        """From the command line. Raises ``ValueError``."""
        found = _FORM.fullmatch(text)
        if found is None or (found["rule"] == "never" and found["limit"]):
            raise ValueError(f"{text!r} is none of never, on-failure[:N], always[:N]")
        rule, limit = found["rule"].replace("-", "_"), found["limit"]
        return cls(
            rule,
            LIMIT if limit is None else int(limit),
            backoff_seconds,
            counts_successes=limit is not None,
        )

    def as_json(self) -> dict[str, Any]:
        """As an instance carries it."""
        return {
            "policy": self.rule,
            "max_restarts": self.limit,
            "backoff_seconds": self.backoff_seconds,
        }


class Restarts:
    """The count of one command's restarts: each start of it after one that had ended.

    Neither the first start is one, nor a restart that was planned and did not happen (the run was
    told to stop in the pause, its claim was lost, the command could not be started).
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.exhausted = False
        self._starts = 0
        self._in_a_row = 0

    @property
    def total(self) -> int:
        """How many there were."""
        return max(self._starts - 1, 0)

    def started(self) -> None:
        """The command runs: for the first time, or again."""
        self._starts += 1

    def pause(self, exit_code: int, ran_seconds: float) -> float | None:
        """Seconds to wait before it is started again, longer each time; ``None``: it is not."""
        policy = self.policy
        if policy.rule == "never" or (policy.rule == "on_failure" and exit_code == 0):
            return None
        if ran_seconds >= STEADY_SECONDS:
            self._in_a_row = 0
        if exit_code == 0 and not policy.counts_successes:
            self._in_a_row = 0
            return policy.backoff_seconds
        if self._in_a_row >= policy.limit:
            self.exhausted = True
            return None
        longest = max(LONGEST_PAUSE_SECONDS, policy.backoff_seconds)
        pause = min(policy.backoff_seconds * 2.0**self._in_a_row, longest)
        self._in_a_row += 1
        return pause
