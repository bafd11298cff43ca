"""Who waits for events: how far the log was looked through, and how many may wait."""

from __future__ import annotations

from typing import cast

import pytest

from interfaces.operations.following import WAITING_EACH, Followers, TooManyWaiting, asker
from projections.kernel.progress import Progress
from projections.kernel.reads import Reads


@pytest.fixture
def followers() -> Followers:
    return Followers(cast(Reads, None), Progress())


def test_where_there_was_nothing_is_not_looked_again(followers: Followers) -> None:
    """Of the same types, from the same place or from within what was looked through."""
    kinds = ["pr_merged"]
    assert followers.skipped("n", kinds, 5) == 5
    followers.found_nothing("n", kinds, 5, 90)
    assert followers.skipped("n", kinds, 5) == 90
    assert followers.skipped("n", kinds, 40) == 90
    assert followers.skipped("n", kinds, 90) == 90
    assert followers.skipped("n", kinds, 200) == 200
    # What lies before was not looked through, nor other types', nor another namespace's.
    assert followers.skipped("n", kinds, 4) == 4
    assert followers.skipped("n", ["pr_created"], 5) == 5
    assert followers.skipped("m", kinds, 5) == 5


def test_what_was_looked_through_grows_together(followers: Followers) -> None:
    kinds = ["pr_merged"]
    followers.found_nothing("n", kinds, 50, 90)
    followers.found_nothing("n", kinds, 90, 120)
    assert followers.skipped("n", kinds, 50) == 120
    followers.found_nothing("n", kinds, 10, 60)
    assert followers.skipped("n", kinds, 10) == 120
    # With a gap between them the later one is what is worth knowing.
    followers.found_nothing("n", kinds, 200, 300)
    assert followers.skipped("n", kinds, 10) == 10
    assert followers.skipped("n", kinds, 250) == 300


def test_all_types_are_never_looked_through_in_vain(followers: Followers) -> None:
    followers.found_nothing("n", [], 5, 90)
    assert followers.skipped("n", [], 5) == 5


def test_a_key_s_waiting_requests_are_bounded_and_another_s_are_not_hindered(
    followers: Followers,
) -> None:
    asker.set("loud")
    held = [followers.waiting() for _ in range(WAITING_EACH)]
    for one in held:
        one.__enter__()
    with pytest.raises(TooManyWaiting), followers.waiting():
        pass
    asker.set("quiet")
    with followers.waiting():
        pass
    asker.set("loud")
    held.pop().__exit__(None, None, None)
    with followers.waiting():
        pass
    for one in held:
        one.__exit__(None, None, None)
    assert not followers._of
