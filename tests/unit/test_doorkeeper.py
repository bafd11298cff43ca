"""Who gets a connection when there are not enough."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest

from interfaces.access.addresses import is_loopback, neighbourhood
from interfaces.http import doorkeeper as doorkeepers
from interfaces.http.doorkeeper import (
    MAX_UNREAD_OF_ONE,
    PAUSE_SECONDS,
    TURNS,
    Doorkeeper,
    Limits,
)


@dataclass(eq=False)
class Someone:
    """A connection, as far as the doorkeeper cares."""

    address: str
    has_key: bool = False
    is_busy: bool = False
    was_dropped: bool = False

    def look(self, now: float) -> None:
        """Its time is never up."""

    def drop(self) -> None:
        """It is over."""
        self.was_dropped = True


def come(doorkeeper: Doorkeeper, address: str, number: int, **fields: bool) -> list[Someone]:
    """So many from one address, all of whom get in."""
    arrived = [Someone(address, **fields) for _ in range(number)]
    assert all(doorkeeper.admit(someone) for someone in arrived)
    return arrived


def test_the_longest_standing_stranger_goes() -> None:
    """Given a full house, then strangers go in the order in which they came."""
    doorkeeper = Doorkeeper(Limits(connections=4))
    friends = come(doorkeeper, "10.0.0.1", 2, has_key=True)
    strangers = come(doorkeeper, "10.0.0.2", 2)
    more = come(doorkeeper, "10.0.0.3", 3)
    assert [s.was_dropped for s in (*strangers, *more)] == [True, True, True, False, False]
    assert not any(friend.was_dropped for friend in friends)
    assert len(doorkeeper) == 4


def test_then_whoever_asks_nothing_goes_and_then_nobody() -> None:
    """Given only those with a key, then an idle one goes; if all are busy the new one does."""
    doorkeeper = Doorkeeper(Limits(connections=2))
    [busy] = come(doorkeeper, "10.0.0.1", 1, has_key=True, is_busy=True)
    [idle] = come(doorkeeper, "10.0.0.1", 1, has_key=True)
    [last] = come(doorkeeper, "10.0.0.1", 1, has_key=True, is_busy=True)
    assert (busy.was_dropped, idle.was_dropped) == (False, True)
    assert not doorkeeper.admit(Someone("10.0.0.1"))
    assert not last.was_dropped


def test_an_address_drops_its_own() -> None:
    """Given more of one address than it may have, then its own go, and nobody else's."""
    doorkeeper = Doorkeeper(Limits(connections=100, connections_per_address=3))
    others = come(doorkeeper, "10.0.0.1", 3)
    mine = come(doorkeeper, "2001:db8::1", 2) + come(doorkeeper, "2001:db8::ffff:2", 3)
    assert [s.was_dropped for s in mine] == [True, True, False, False, False]
    assert not any(other.was_dropped for other in others)


def test_this_machine_and_trusted_proxies_may_have_all() -> None:
    """Given a fleet on this machine or behind a proxy, then the limit of an address is not its."""
    limits = Limits(
        connections=100, connections_per_address=3, trusted_proxies=("10.1.0.0/16", "2001:db8::7")
    )
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "2001:db8::7"):
        doorkeeper = Doorkeeper(limits)
        assert not any(s.was_dropped for s in come(doorkeeper, address, 50))


def test_who_goes_makes_room() -> None:
    """Given connections that come and go, then nothing is remembered of them."""
    doorkeeper = Doorkeeper(Limits(connections=3, connections_per_address=2))
    for number in range(50):
        for someone in come(doorkeeper, f"10.0.0.{number}", 2):
            doorkeeper.introduce(someone)
            doorkeeper.forget(someone)
            doorkeeper.forget(someone)
            assert not someone.was_dropped
    assert len(doorkeeper) == 0
    assert doorkeeper._counts == {}


def test_addresses_that_are_one() -> None:
    """An IPv6 network is whoever has it; an IPv4 address in IPv6's form is an IPv4 address."""
    assert neighbourhood("10.0.0.1") == neighbourhood("::ffff:10.0.0.1") == "10.0.0.1"
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8:0:0:ffff::2%eth0")
    assert neighbourhood("2001:db8::1") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("unknown") == "unknown"
    assert is_loopback("127.1.2.3")
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("unknown")


def test_strangers_take_turns() -> None:
    """Given many strangers' requests at once, then a few before each pause, as they came."""
    begun: list[int] = []

    async def rounds() -> list[int]:
        doorkeeper = Doorkeeper(Limits())
        counts = []
        for number in range(3 * TURNS + 1):
            doorkeeper.take_turns(partial(begun.append, number))
        while len(begun) <= 3 * TURNS:
            counts.append(len(begun))
            await asyncio.sleep(PAUSE_SECONDS / 10)
        # Another one is answered at once when nobody has waited for the length of a pause.
        await asyncio.sleep(2 * PAUSE_SECONDS)
        doorkeeper.take_turns(partial(begun.append, 3 * TURNS + 1))
        return sorted({*counts, len(begun)})

    counts = asyncio.run(rounds())
    # A look may come too late to see each step, but no step is larger.
    assert set(counts) <= {TURNS, 2 * TURNS, 3 * TURNS, 3 * TURNS + 2}
    assert begun == list(range(3 * TURNS + 2))


def test_strangers_wait_for_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a pause that does not end, then no more are begun, however often others have a turn."""
    monkeypatch.setattr(doorkeepers, "PAUSE_SECONDS", 3_600)
    begun: list[int] = []

    async def rounds() -> None:
        doorkeeper = Doorkeeper(Limits())
        for number in range(3 * TURNS):
            doorkeeper.take_turns(partial(begun.append, number))
            await asyncio.sleep(0)

    asyncio.run(rounds())
    assert begun == list(range(TURNS))


def test_large_bodies_of_each_key_wait_in_a_line_of_their_own() -> None:
    """Given many of one key, another's is the next but one, and small requests go on between."""
    order: list[str] = []

    async def take(doorkeeper: Doorkeeper, who: str) -> None:
        await doorkeeper.wait_for_large_body(who, 20_000)
        order.append(who)

    async def others() -> None:
        while True:
            order.append("small")
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        doorkeeper = Doorkeeper(Limits())
        small = asyncio.create_task(others())
        many = [asyncio.create_task(take(doorkeeper, "many")) for _ in range(20)]
        await asyncio.sleep(0)
        await take(doorkeeper, "one")
        await asyncio.gather(*many)
        small.cancel()

    asyncio.run(all_of_them())
    large = [who for who in order if who != "small"]
    assert len(large) == 21
    assert large.index("one") <= 2
    places = [place for place, who in enumerate(order) if who != "small"]
    assert all(b - a > 1 for a, b in pairwise(places))


def test_a_large_body_waits_for_as_long_as_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a pause that does not end for a large body, then none is looked through."""
    monkeypatch.setattr(doorkeepers, "PAUSE_SECONDS_A_BYTE", 1.0)
    taken: list[int] = []

    async def take(doorkeeper: Doorkeeper, size: int) -> None:
        await doorkeeper.wait_for_large_body("somebody", size)
        taken.append(size)

    async def all_of_them() -> None:
        doorkeeper = Doorkeeper(Limits())
        waiting = [asyncio.create_task(take(doorkeeper, size)) for size in (0, 100_000, 0)]
        while not taken:
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(2 * PAUSE_SECONDS)
        for task in waiting:
            task.cancel()

    asyncio.run(all_of_them())
    assert taken == [0]


def test_a_large_reply_waits_until_others_are_read() -> None:
    """Given as much on its way to a key's clients as may be, then another waits."""

    async def wait() -> list[str]:
        doorkeeper = Doorkeeper(Limits())
        done: list[str] = []

        async def make(who: str) -> None:
            async with doorkeeper.room(who):
                done.append(who)

        async with doorkeeper.sending("slow", MAX_UNREAD_OF_ONE):
            waiting = asyncio.create_task(make("slow"))
            await make("other")
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        return done

    assert asyncio.run(wait()) == ["other", "slow"]
