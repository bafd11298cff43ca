"""Whoever asks first once the database is back is answered, whatever was broken meanwhile."""

from __future__ import annotations

from application.eventstore.migrate import migrate
from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.serving import Api, Json, ok
from tests.support.killable import KillablePostgres

Request = tuple[str, str, Json | None]


def of_every_kind(session_id: str, instance_id: str, number: int) -> list[Request]:
    """One request for each set of connections that the service keeps, and for each way to use it.

    The writer is asked for something that is not in its memory.
    """
    session = f"/api/sessions/{session_id}"
    return [
        ("POST", "/api/sessions/detect-failures", None),
        ("POST", "/api/claims", {"item_id": f"claimed-{number}", "session_id": session_id}),
        ("POST", "/api/work-items", {"item_id": f"listed-{number}", "depends_on": ["other"]}),
        ("POST", f"{session}/heartbeat", {}),
        ("GET", session, None),
        ("GET", f"/api/streams/session-{session_id}/events", None),
        ("GET", f"/api/streams/session-{session_id}/events?keyword=nothing", None),
        ("GET", f"/api/instances/{instance_id}/resume", None),
        ("GET", "/api/events?after=0", None),
        ("POST", "/api/sessions/cleanup", {}),
    ]


def test_the_first_request_of_every_kind_is_answered_after_the_database_was_killed(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given connections of every kind that broke while they were idle, then nobody is refused."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url) as server, server.default() as api:
        api.timeout = 30
        session_id = api.session()["session_id"]
        body = {"project": "p", "instance_type": "PS"}
        instance_id = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        for first in range(3):
            send_all(api, of_every_kind(session_id, instance_id, 2 * first))
            private_cluster.kill()
            private_cluster.start()
            asked = of_every_kind(session_id, instance_id, 2 * first + 1)
            send_all(api, asked[first:] + asked[:first])


def send_all(api: Api, requests: list[Request]) -> None:
    for verb, where, body in requests:
        reply = api.request(verb, where, json=body)
        assert reply.status_code in (200, 201), f"{verb} {where}: {reply.text}"
