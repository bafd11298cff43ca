"""Events that a read model could not fold: an operator sees them, and gets rid of the cause."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import ROOT, Server, cloned, environment, eventually, name, ok
from tests.support.postgres import as_owner


def operator(url: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``holdfast-server`` says to an operator."""
    return subprocess.run(
        [sys.executable, "-m", "interfaces.host.server", *arguments],
        cwd=ROOT,
        env=environment({"DATABASE_URL": url, "DATA_DIR": str(directory), "API_KEYS": "a-key"}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_event_that_cannot_be_folded_is_told_and_retried(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """Given a row that the database refuses, then everyone is told, and a retry mends it."""
    with cloned(cluster, template) as url:
        with as_owner(url) as owner:
            owner.execute("ALTER TABLE machines ADD CHECK (hostname <> 'refused')")
        with Server(url, tmp_path) as server, server.default() as api, server.team() as team:
            assert operator(url, tmp_path, "dead-letters").returncode == 0
            good, bad = name("machine"), name("machine")
            for machine_id, hostname in ((good, "tower"), (bad, "refused")):
                body = {"machine_id": machine_id, "hostname": hostname, "docker_slots": []}
                ok(api.post("/api/machines", json=body), 201)
            assert ok(api.get(f"/api/machines/{good}"))["hostname"] == "tower"
            assert api.get(f"/api/machines/{bad}").status_code == 404
            [letter] = ok(api.get("/api/dead-letters"))["dead_letters"]
            assert (letter["read_model"], letter["event_type"], letter["stream_id"]) == (
                "machines",
                "machine_registered",
                f"machine-{bad}",
            )
            assert "check constraint" in letter["error"]
            # It is nobody's business in another namespace.
            assert ok(team.get("/api/dead-letters"))["total_count"] == 0
            eventually(
                "health tells of it", lambda: ok(api.get("/health")).get("dead_letters") == 1
            )
            told = operator(url, tmp_path, "dead-letters")
            assert (told.returncode, "machines: 1 event" in told.stdout) == (1, True)

            retried = operator(url, tmp_path, "dead-letters", "--retry")

            assert (retried.returncode, "no dead letters" in retried.stdout) == (0, True)
            assert ok(api.get(f"/api/machines/{bad}"))["hostname"] == "refused"
            assert ok(api.get("/api/dead-letters"))["dead_letters"] == []


def test_a_read_model_that_there_is_not_cannot_be_rebuilt(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """Given a wrong name, then the right ones are told, and nothing was done."""
    with cloned(cluster, template) as url:
        told = operator(url, tmp_path, "rebuild", "--only", "sessions", "--only", "sesions")
        assert told.returncode == 2
        assert "sesions" in told.stderr
        assert "work_items" in told.stderr
        assert operator(url, tmp_path, "rebuild", "--only", "sessions").returncode == 0
