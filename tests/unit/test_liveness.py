from __future__ import annotations

import pytest

from domain.liveness import age_seconds, colour, human_age, is_past
from tests.support.given import at


def test_an_age_is_never_below_zero() -> None:
    assert age_seconds(at(10), at(12.5)) == 2.5
    assert age_seconds(at(12), at(10)) == 0


def test_past_means_strictly_greater() -> None:
    assert not is_past(at(0), at(120), 120)
    assert is_past(at(0), at(120.000001), 120)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0s ago"),
        (0, "0s ago"),
        (45.9, "45s ago"),
        (59.999, "59s ago"),
        (60, "1m ago"),
        (179, "2m ago"),
        (3_599, "59m ago"),
        (3_600, "1h ago"),
        (3 * 3_600 + 1, "3h ago"),
        (86_399, "23h ago"),
        (86_400, "1d ago"),
        (2.9 * 86_400, "2d ago"),
    ],
)
def test_an_age_is_said_in_whole_units(seconds: float, said: str) -> None:
    assert human_age(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "light"),
    [(0, "green"), (59.9, "green"), (60, "yellow"), (179.9, "yellow"), (180, "red"), (9e9, "red")],
)
def test_a_heartbeats_age_has_a_colour(seconds: float, light: str) -> None:
    assert colour(seconds) == light
