"""The next item among many rivals, and where no candidate can be claimed: it, or 204."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.acceptance.queue import Queue, who
from tests.acceptance.serving import Api, Json, Server, gone, ok

RIVALS = 30
ITEMS = 5
# More than the service looks at in one go, and more often than it used to look.
REFUSED = 45


@pytest.fixture
def queue(api: Api) -> Queue:
    """The test's own queue."""
    return Queue(api)


@pytest.fixture
def misread(store: psycopg.Connection, api: Api) -> Callable[[str], None]:
    """Has the read model say that an item is open, which it is not."""
    row = store.execute(
        "SELECT schemaname FROM pg_tables WHERE tablename = 'work_items'"
        " AND starts_with(schemaname, 'projection')"
    ).fetchone()
    assert row is not None
    table = Identifier(row[0], "work_items")

    def change(item_id: str) -> None:
        store.execute(
            SQL(
                "UPDATE {} SET status = 'open', depends_on = '[]', holder_id = NULL,"
                " holder_kind = NULL WHERE namespace = %s AND item_id = %s"
            ).format(table),
            [api.namespace, item_id],
        )

    return change


@pytest.mark.parametrize("takeover", [False, True])
def test_of_thirty_rivals_each_has_an_item_or_hears_that_there_is_none(
    server: Server, api: Api, queue: Queue, takeover: bool
) -> None:
    """Given 5 items and 30 who take one, give it back and take again, then 201 or 204, always."""
    for number in range(ITEMS):
        queue.add(f"item-{number}", priority=number)
    sessions = [api.session() for _ in range(RIVALS)]

    def rival(session: Json) -> Counter[int]:
        heard: Counter[int] = Counter()
        with Api(server.url, api.key, api.namespace) as client:
            for _ in range(4):
                body = {**who(session), "takeover": takeover}
                reply = client.post("/api/work-items/claim-next", json=body)
                heard[reply.status_code] += 1
                if reply.status_code == 201:
                    item_id = reply.json()["item_id"]
                    ok(Queue(client).release(item_id, session, fence=reply.json()["fence"]))
        return heard

    with ThreadPoolExecutor(RIVALS) as pool:
        heard = sum(pool.map(rival, sessions), Counter[int]())

    assert set(heard) <= {201, 204}
    assert heard[201] >= ITEMS
    assert [item["status"] for item in queue.items()] == ["open"] * ITEMS


@pytest.mark.parametrize("takeover", [False, True])
def test_where_all_candidates_are_refused_there_is_nothing_to_claim(
    api: Api, queue: Queue, misread: Callable[[str], None], takeover: bool
) -> None:
    """Given a read model that offers what others hold, what is over and what waits, then 204."""
    holder, session = api.session(), api.session()
    for number in range(3):
        queue.add(f"held-{number}")
        queue.claim(f"held-{number}", holder)
    queue.add("done")
    queue.claim("done", holder)
    ok(queue.complete("done", holder))
    queue.add("waits", depends_on=["held-0"])
    for item in queue.items():
        misread(item["item_id"])

    reply = api.post("/api/work-items/claim-next", json={**who(session), "takeover": takeover})

    gone(reply)


def test_what_lies_behind_refused_candidates_is_found(
    api: Api, queue: Queue, misread: Callable[[str], None]
) -> None:
    """Given many items at the head of the queue that are refused, then the one behind them."""
    holder, session = api.session(), api.session()
    for number in range(REFUSED):
        queue.add(f"held-{number}", priority=9)
        queue.claim(f"held-{number}", holder)
    queue.add("behind")
    ok(api.get("/api/work-items"))
    for number in range(REFUSED):
        misread(f"held-{number}")

    assert [queue.next(session), queue.next(session)] == ["behind", None]
