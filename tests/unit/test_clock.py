"""The database's time, carried on here: what was heard late is not believed (spec 3, one clock)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from application.engine.clock import DatabaseClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Host:
    """A host that can stand still; the database's time goes on as its own does."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.ahead = 0.0

    def clock(self) -> float:
        return self.seconds

    def database(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds + self.ahead)

    def unreachable(self) -> datetime:
        raise AssertionError("the database was asked")


@pytest.fixture
def host() -> Host:
    return Host()


def test_it_carries_on_the_database_s_time_without_asking_for_it(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    clock.now(host.database)
    host.seconds += 4.0

    assert clock.now(host.unreachable) == host.database()


def test_it_asks_again_after_a_while(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    clock.now(host.database)
    host.seconds += 6.0
    host.ahead = 10.0  # the database's clock was set

    assert clock.now(host.database) == host.database()


def test_two_looks_that_differ_a_little_do_not_turn_time_back(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    before = clock.now(host.database)
    host.seconds += 6.0
    host.ahead = -6.5

    assert clock.now(host.database) == before


def test_a_clock_that_was_set_back_is_followed(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    clock.now(host.database)
    host.seconds += 6.0
    host.ahead = -60.0

    assert clock.now(host.database) == host.database()


def test_an_answer_that_was_long_under_way_does_not_turn_the_clock_back(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    clock.now(host.database)

    asked, said = host.seconds, host.database()
    host.seconds += 3.0  # stopped, with the answer in the socket
    clock.set(said, asked)

    assert clock.now(host.database) == host.database()


def test_a_late_answer_is_asked_for_again(host: Host) -> None:
    clock = DatabaseClock(host.clock)
    delays = iter([3.0, 0.0])

    def ask() -> datetime:
        said = host.database()
        host.seconds += next(delays)
        return said

    assert clock.now(ask) == host.database()
