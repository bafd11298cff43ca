"""A server that is killed as it starts is started again (field case 11)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError


class Unlucky(EmbeddedPostgres):
    """Something kills the server as it starts, so many times."""

    kills = 1

    def _spawn(self) -> int:
        pid = super()._spawn()
        if self.kills:
            self.kills -= 1
            os.kill(pid, signal.SIGKILL)
        return pid


def test_one_that_was_killed_as_it_started_is_started_again(data_dir: Path) -> None:
    """Given kill -9 before it answers, then whoever starts it gets a server all the same."""
    with Unlucky(data_dir) as postgres, psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_one_that_never_starts_is_told(data_dir: Path) -> None:
    """Given that it ends each time, then that is said and not tried for ever."""
    postgres = Unlucky(data_dir)
    postgres.kills = 100
    with pytest.raises(EmbeddedPostgresError, match="did not start"):
        postgres.start()
