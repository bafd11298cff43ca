"""Many callers at once for one item, and for the next one: who wins, and what the others hear."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import uuid4

import httpx

CLAIMERS = 50
ITEMS_EACH = 4

T = TypeVar("T")


class Claimers:
    """Sessions that ask at the same time, each with a connection of its own."""

    def __init__(self, urls: Sequence[str], key: str, number: int = CLAIMERS) -> None:
        headers = {"X-API-Key": key}
        self._clients = [
            httpx.Client(base_url=urls[n % len(urls)], headers=headers, timeout=30, trust_env=False)
            for n in range(number)
        ]
        self._pool = ThreadPoolExecutor(number)
        self._line = threading.Barrier(number)
        self.ids = [self._opened(client) for client in self._clients]

    def __enter__(self) -> Claimers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def all_at_once(self, ask: Callable[[httpx.Client, str], T]) -> list[T]:
        """What each got for asking at the same time as all others."""

        def wait_and_ask(client: httpx.Client, session_id: str) -> T:
            self._line.wait()
            return ask(client, session_id)

        return list(self._pool.map(wait_and_ask, self._clients, self.ids))

    def list_item(self, item: str, track: str) -> None:
        """Put an item on a track's list."""
        reply = self._clients[0].post("/api/work-items", json={"item_id": item, "track": track})
        reply.raise_for_status()

    @staticmethod
    def _opened(client: httpx.Client) -> str:
        name = uuid4().hex
        reply = client.post("/api/sessions", json={"project_id": name, "machine_id": name})
        reply.raise_for_status()
        session_id: str = reply.json()["session_id"]
        return session_id


def findings(urls: Sequence[str], key: str, rounds: int) -> dict[str, list[str]]:
    """What is wrong with the races."""
    with Claimers(urls, key) as claimers:
        return {
            "one winner a race": one_winner_each(claimers, rounds),
            "the next item is nobody else's": nobody_gets_the_same(claimers),
        }


def one_winner_each(claimers: Claimers, rounds: int) -> list[str]:
    """Each round all claim a new item: exactly one has it, and all others hear who."""
    found = []
    for number in range(rounds):
        item = f"race-{uuid4().hex}"
        replies = claimers.all_at_once(
            lambda client, session_id, item=item: client.post(  # type: ignore[misc]
                "/api/claims", json={"item_id": item, "session_id": session_id}
            )
        )
        statuses = Counter(reply.status_code for reply in replies)
        if statuses != {201: 1, 409: len(replies) - 1}:
            found.append(f"race {number} was answered with {dict(statuses)}")
            continue
        winner = next(r.json()["session_id"] for r in replies if r.status_code == 201)
        named = {r.json()["details"]["claimed_by"] for r in replies if r.status_code == 409}
        if named != {winner}:
            found.append(f"race {number} was won by {winner}; losers were told {sorted(named)}")
    return found


def nobody_gets_the_same(claimers: Claimers) -> list[str]:
    """All take the next item again and again, until there is none: each item went once."""
    track = uuid4().hex
    items = {f"next-{uuid4().hex}" for _ in range(len(claimers.ids) * ITEMS_EACH)}
    for item in items:
        claimers.list_item(item, track)

    def take_all(client: httpx.Client, session_id: str) -> list[str]:
        taken: list[str] = []
        while True:
            body = {"session_id": session_id, "track": track}
            reply = client.post("/api/work-items/claim-next", json=body)
            if reply.status_code == 204:
                return taken
            if reply.status_code == 201:
                taken.append(reply.json()["item_id"])
            elif reply.status_code != 503:  # the queue is not known at the moment
                raise AssertionError(f"{reply.status_code}: {reply.text}")

    given = Counter(item for taken in claimers.all_at_once(take_all) for item in taken)
    found = [f"{item} was given to {times}" for item, times in given.items() if times > 1]
    found += [f"{item} was given to nobody" for item in items - set(given)]
    return found + [f"{item} was never on the list" for item in set(given) - items]
