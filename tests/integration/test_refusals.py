"""What is logged of refusals when nothing follows them (field case 3)."""

from __future__ import annotations

import logging

import pytest

from interfaces.access import auth
from interfaces.access.repeats import FIRST
from interfaces.http import doorkeeper
from tests.acceptance.serving import Api, refused
from tests.support.in_process import service_within
from tests.support.waiting import eventually


def test_refusals_that_simply_stop_are_told(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a flood without keys that ends, then the log tells of all of it, after a while."""
    number = FIRST + 100
    monkeypatch.setattr(doorkeeper, "SUMMARY_SECONDS", 1.0)
    # What other tests of this process have had refused is told with whatever comes next.
    auth.failures.left(0)
    caplog.set_level(logging.WARNING, "holdfast.auth")
    with service_within(database, "a-key-of-this-test") as url, Api(url, None, "") as client:
        for _ in range(number):
            refused(client.get("/api/sessions"), 401, "unauthorized")

        def told() -> bool:
            lines = [line for line in caplog.records if line.message == auth.FAILED]
            counts = [vars(line)["attempts_since_last_line"] for line in lines]
            written = [line for line in lines if "reason" in vars(line)]
            return bool(len(written) + sum(counts) == number)

        eventually(told, "a line that sums up")
