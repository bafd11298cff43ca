"""What a run yields: bars, and the figures that are held against them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Detail = float | int | str
Compare = Literal["≥", "≤", "<"]


class Bar(NamedTuple):
    """A promise: what is measured, and how large or small it has to be."""

    name: str
    what: str
    compare: Compare
    value: float
    unit: str = ""

    def met_by(self, measured: float) -> bool:
        """Whether a figure keeps the promise."""
        match self.compare:
            case "≥":
                return measured >= self.value
            case "≤":
                return measured <= self.value
            case "<":
                return measured < self.value

    def shown(self) -> str:
        """``< 10 ms``."""
        return f"{self.compare} {written(self.value)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Figure:
    """What came out for one bar, and what helps to understand it."""

    bar: str
    measured: float
    details: Mapping[str, Detail] = field(default_factory=dict)
    # How it is shown, where a number says too little.
    shown: str = ""


class BenchError(Exception):
    """A measurement is worth nothing, and why."""


class Effort(NamedTuple):
    """How long to look. A quick run shows that the bench works; its figures say little."""

    rounds: int  # of one phase for each server
    phase_seconds: int
    emit_seconds: int
    samples: int  # of each kind of sequential request
    backlog: int  # events to catch up with
    passes: int  # of catching up
    lag_seconds: int
    heartbeats: int  # on disk
    swept: int  # sessions, instances
    stale: int  # of the swept ones
    history: int = 0  # events of the large store; 0: no history is measured


FULL = Effort(5, 8, 60, 500, 100_000, 3, 30, 100_000, 100_000, 1_000)
QUICK = Effort(2, 2, 5, 60, 20_000, 1, 5, 20_000, 10_000, 100)

# Told what is being done, and which step of how many it is.
Watch = Callable[[str, int, int], None]


def median(values: Sequence[float]) -> float:
    """The value in the middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    if not values:
        raise BenchError("there is nothing to take a percentile of")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def written(value: Detail) -> str:
    """A number with about three digits that matter."""
    if isinstance(value, str):
        return value
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
