"""A cluster that may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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


@contextmanager
def frozen(postgres: KillablePostgres) -> Iterator[None]:
    """All its processes stand still, until they go on at the end or are woken.

    Sockets take what is sent meanwhile, and nobody answers.
    """
    assert postgres.pid is not None
    postmaster = psutil.Process(postgres.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
