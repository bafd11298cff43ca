"""Commands tell who has not been heard of since the service was away, and that its database is."""

from __future__ import annotations

from pathlib import Path

from application.eventstore.migrate import migrate
from holdfast.cli.show import words
from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import schema
from tests.acceptance.serving import PLAIN_KEY, Server, cloned, eventually, ok
from tests.support.commands import Cli
from tests.support.killable import KillablePostgres
from tests.support.postgres import change


def test_who_is_unheard_since_an_absence_is_told(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """Given a service that was away, then who has not beaten since is unknown."""
    with cloned(cluster, template) as url:
        with Server(url, tmp_path) as server, server.default() as api:
            session = api.session(project_id="odin")["session_id"]
            body = {"project": "odin", "instance_type": "PS"}
            agent = ok(api.post("/api/instances", json=body), 201)["instance_id"]
            assert "Unknown" not in Cli(server.url, PLAIN_KEY).ok("status")
        # It was not there for an hour.
        change(url, "UPDATE serving_intervals SET last_at = last_at - interval '1 hour'")
        with Server(url, tmp_path) as server, server.default() as api:
            cli = Cli(server.url, PLAIN_KEY)

            told = cli.ok("status")

            (line,) = [line for line in told.splitlines() if line.startswith("Unknown")]
            assert "2 with no heartbeat yet since the service was away (from " in line
            assert told.count(" ago?") == 2
            own = {"HOLDFAST_SESSION_ID": session, "HOLDFAST_INSTANCE_ID": agent}
            assert (
                cli.ok("doctor", **own).count("has sent no heartbeat since the service was away")
                == 2
            )

            api.beat(session)
            ok(api.post(f"/api/instances/{agent}/heartbeat", json={}))

            assert "ago?" not in cli.ok("status")
            assert "not heard of" not in cli.ok("doctor", **own)


def test_the_doctor_tells_a_database_that_is_away_from_a_service_that_is(
    private_cluster: KillablePostgres, tmp_path: Path
) -> None:
    """Given a service without its database, then the doctor ends its list, and names that."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with Server(url, tmp_path) as server, server.default() as api:
        cli = Cli(server.url, PLAIN_KEY)
        private_cluster.kill()
        eventually("a refusal", lambda: api.get("/api/sessions").status_code == 503)

        ended = cli("doctor")

        assert ended.code == 6
        assert "✓  service" in ended.out
        assert "✗  database" in ended.out
        assert "→ nothing needs to be done on this machine" in ended.out
        assert "✓  spool" in ended.out


def test_an_age_that_may_be_wrong_is_told_as_such() -> None:
    assert words.heartbeat(720.0, "2026-01-31T12:00:00Z").plain == "12m ago?"
    assert words.heartbeat(720.0).plain == "12m ago"
