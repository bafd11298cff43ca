"""What gets killed: processes of the service, and the Postgres beneath them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from interfaces.host.server import UNAVAILABLE_EXIT
from interfaces.host.settings import Settings
from tests.support.waiting import eventually

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]


class Service:
    """A process of the service on a port of its own, started again whenever it has ended."""

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self.port = _free_port()
        self.url = f"http://{HOST}:{self.port}"
        # How it ended, each time that nobody had killed it.
        self.surprises: list[int] = []
        ours = {name.upper() for name in Settings.model_fields}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in ours},
            **settings,
            "HOST": HOST,
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        self._log = log
        self._stopping = False
        self._killed: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"keeper-{self.port}")

    def start(self) -> None:
        """Start it, and go on starting it."""
        self._keeper.start()

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL it once it serves."""
        eventually(self.answers, f"a process serving on port {self.port}")
        assert self._process is not None
        self._killed.add(self._process.pid)
        self._process.kill()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP it for the length of the block. It will not know that time went by."""
        eventually(self.answers, f"a process serving on port {self.port}")
        assert self._process is not None
        process = self._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM it, wait for its end, and start it no more."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()
        self._keeper.join()

    def _keep(self) -> None:
        with self._log.open("ab") as log:
            while not self._stopping:
                process = subprocess.Popen(
                    [sys.executable, "-m", "interfaces.host.server", "serve"],
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._process = process
                code = process.wait()
                killed = process.pid in self._killed and code == -signal.SIGKILL
                # It may find no database to begin with; whoever starts it then tries again.
                if code != 0 and not killed and code != UNAVAILABLE_EXIT:
                    self.surprises.append(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
