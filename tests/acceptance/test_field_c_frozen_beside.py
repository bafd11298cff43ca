"""Of two services on one database one stands still in the midst of its work (field case 9)."""

from __future__ import annotations

from contextlib import closing

import psycopg

from application.eventstore import connect
from tests.acceptance.conftest import Start
from tests.acceptance.queue import Queue
from tests.acceptance.serving import eventually, ok


def test_one_that_stands_still_within_a_batch_of_its_projector_holds_up_no_reads(
    database: str, start: Start
) -> None:
    """Given its locks on the positions, when another writes, then it soon reads what it wrote."""
    with start(database) as other, other.default() as api:
        api.session()
        with closing(psycopg.connect(connect.conninfo(database))) as frozen:
            frozen.execute("SELECT position FROM projections.positions FOR UPDATE")
            session = api.session()
            Queue(api).claim("item", session)
            # Sooner than a transaction ends that nobody ends.
            eventually(
                "the claim in the list",
                lambda: ok(api.get("/api/claims"))["claims"] or None,
                seconds=20,
            )
            path = f"/api/sessions/{session['session_id']}"
            assert ok(api.get(path))["status"] == "active"


def test_one_that_stands_still_while_it_has_the_log_holds_up_no_writes(
    database: str, start: Start
) -> None:
    """Given the log of a namespace, when others beat, then they wait for a moment at most."""
    with start(database) as other, other.default() as api:
        session = api.session()
        with closing(psycopg.connect(connect.conninfo(database))) as frozen:
            frozen.execute("SELECT hold_log('default')")
            ok(api.post(f"/api/sessions/{session['session_id']}/heartbeat", json={}))
