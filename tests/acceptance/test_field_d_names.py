"""What is set and is no setting is named at start, on the console and in the log."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.serving import Server


def test_every_name_that_nothing_reads_is_told_once(database: str, tmp_path: Path) -> None:
    """Given misspelt names, ours and with our prefix, then one warning each, and no value."""
    wrong = {
        "STALL_TRESHOLD_MS": "1234567",
        "RATE_LIMIT_PER_MINUTE": "1234567",
        "HOLDFAST_SWEEP_SECONDS": "1234567",
        "HOLDFAST_TOKEN": "1234567",
    }
    with Server(database, tmp_path, **wrong, HOLDFAST_URL="http://127.0.0.1:1") as server:
        log = server.log()
        told = {line["context"]["variable"] for line in server.lines("setting_perhaps_mistyped")}
    assert told == set(wrong)
    assert "STALL_TRESHOLD_MS is set but is not a setting. Did you mean STALL_THRESHOLD_MS?" in log
    assert "HOLDFAST_SWEEP_SECONDS is set but is not a setting. Did you mean SWEEP_SECONDS?" in log
    assert "HOLDFAST_TOKEN is set but is not a setting. It has no effect." in log
    assert "1234567" not in log


def test_a_service_started_as_usual_warns_of_nothing(database: str, tmp_path: Path) -> None:
    """Given right names only, then there is nothing to read before the address."""
    with Server(database, tmp_path, STALL_THRESHOLD_MS="1000") as server:
        assert server.lines("setting_perhaps_mistyped") == []
        assert "warning" not in server.log()
