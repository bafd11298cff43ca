"""Log lines that a stranger can cause are bounded, and so is what is remembered of them."""

from __future__ import annotations

from interfaces.access.repeats import (
    A_SECOND_OF_ALL,
    FIRST,
    FIRST_OF_ALL,
    SOURCES,
    Repeats,
)


class Clock:
    """Stands still unless it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_few_lines_of_a_source_are_written() -> None:
    """Given a flood from one source, then its first lines, and a count of the rest later."""
    repeats = Repeats(clock := Clock())
    written = [repeats.note("a") for _ in range(1_000)]
    assert [n for n in written if n is not None] == [0] * FIRST
    clock.now = 1.0
    assert repeats.note("a") == 1_000 - FIRST
    assert repeats.note("a") is None


def test_another_source_is_heard_beside_it() -> None:
    """Given a flood from one source, then a single line of another is written."""
    repeats = Repeats(Clock())
    for _ in range(1_000):
        repeats.note("a")
    assert repeats.note("b") == 0


def test_many_sources_write_no_more_than_all_may() -> None:
    """Given a flood from ever new sources, then lines and memory are bounded; nothing is lost."""
    repeats = Repeats(clock := Clock())
    number = 20_000
    written = [repeats.note(str(n)) for n in range(number)]
    lines = [n for n in written if n is not None]
    assert len(lines) == FIRST_OF_ALL
    assert len(repeats) == SOURCES
    clock.now = 10.0
    later = [repeats.note(str(number + n)) for n in range(1_000)]
    heard = [n for n in later if n is not None]
    assert len(heard) == 10 * A_SECOND_OF_ALL
    # All but what the sources that are still remembered have kept back.
    assert sum(lines) + sum(heard) >= number - FIRST_OF_ALL - SOURCES


def test_what_simply_stops_is_told_once() -> None:
    """Given floods of two sources that end, then a count after a while, and not twice."""
    repeats = Repeats(clock := Clock())
    for _ in range(FIRST + 100):
        repeats.note("a")
    for _ in range(1_000):
        repeats.note("b")
    clock.now = 29.0
    assert repeats.left(30)[0] == 0
    clock.now = 31.0
    assert repeats.left(30) == (1_100 - FIRST, 2, "b")
    assert repeats.left(30)[0] == 0
    assert repeats.note("a") == 0
