"""What is behind an item of a long chain is looked up by key (field cases 7 and 21)."""

from __future__ import annotations

from application.eventstore import sql
from tests.integration.test_query_plans import PARAMETERS, scanned
from tests.support.postgres import as_owner

LENGTH = 3_000
BEHIND = sql.load("projections", "work_items.sql")["behind"]
FILL = b"""INSERT INTO work_items
               (namespace, item_id, priority, depends_on, status, created_at, updated_at,
                listed_at, open_dependencies)
           SELECT 'crowd', 'item-' || n, 0, to_jsonb(ARRAY['item-' || n - 1]), 'open', now(), now(),
                  n, '[]'
           FROM generate_series(1, 3000) AS n"""


def test_no_step_of_a_long_chain_reads_the_whole_queue(database: str) -> None:
    """Given a chain that is most of its queue, then each of its steps is a look at the key.

    At 5,000 items it was five seconds, which four such requests took from all namespaces.
    """
    asked = {**PARAMETERS, "namespace": "crowd", "item_ids": [f"item-{LENGTH}"], "item_id": None}
    with as_owner(database) as connection:
        connection.execute(FILL)
        for _ in range(2):
            assert scanned(connection, BEHIND, {**asked, "limit": 2 * LENGTH}) == set()
            connection.execute("ANALYZE")
        found = connection.execute(BEHIND.encode(), {**asked, "limit": 2 * LENGTH}).fetchall()
    assert len(found) == LENGTH + 1
