"""A cluster that may be killed."""

from __future__ import annotations

from contextlib import suppress

import psutil

from interfaces.host.embedded_postgres import EmbeddedPostgres


class KillablePostgres(EmbeddedPostgres):
    """A cluster of a test's own, as durable as the service's."""

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children, and return when they are gone."""
        assert self.pid is not None
        postmaster = psutil.Process(self.pid)
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            # A child that finds its postmaster gone may be faster.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=60)
