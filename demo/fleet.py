"""The processes of the tour: the service with its own Postgres, and the workers."""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from interfaces.host.settings import Settings

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
USUAL_PORT = 8080
START_SECONDS = 60.0
LOOK_SECONDS = 0.05

Json = dict[str, Any]

STALL_SECONDS = 3.0
# Short thresholds: the tour is over in half a minute.
SETTINGS = {
    "HOST": HOST,
    "STALL_THRESHOLD_MS": str(round(STALL_SECONDS * 1000)),
    "INSTANCE_STALE_SECONDS": "3",
    "CLAIM_STALE_SECONDS": "6",
    "SWEEP_SECONDS": "1",
}


class NotStarted(Exception):
    """The service did not start; the message is what it said."""


class Service:
    """The service on this machine, in a folder that goes with it."""

    def __init__(self) -> None:
        # /tmp, and open to pass through: as root, Postgres runs as another user.
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-demo-", dir="/tmp"))
        self.directory.chmod(0o711)
        self.results = self.directory / "results"
        self.results.mkdir()
        self.log = self.directory / "service.log"
        self.key = f"demo-{secrets.token_hex(8)}"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "interfaces.host.server", "serve"],
                cwd=ROOT,
                env={
                    **_environment(),
                    **SETTINGS,
                    "API_KEYS": self.key,
                    "DATA_DIR": str(self.directory / "data"),
                    "PORT": str(USUAL_PORT if _is_free(USUAL_PORT) else 0),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tour, which then ends the service in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(self.log.read_text())
            time.sleep(LOOK_SECONDS)

    def _answers(self) -> bool:
        said = re.search(r"serves on (http://\S+)", self.log.read_text())
        if said is None:
            return False
        self.url = said[1]
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self.directory)


class Worker:
    """A worker's process, and what it tells."""

    def __init__(
        self, service: Service, project: str, machine: str, predecessor: str | None = None
    ) -> None:
        self.project = project
        self.machine = machine
        self.session_id: str | None = None
        self.told: queue.SimpleQueue[Json] = queue.SimpleQueue()
        arguments = [project, machine, *([predecessor] if predecessor else [])]
        self._errors = (service.directory / f"worker-{project}-{machine}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo.worker", *arguments],
            cwd=ROOT,
            env={
                **_environment(),
                "HOLDFAST_URL": service.url,
                "HOLDFAST_API_KEY": service.key,
                "DEMO_RESULTS": str(service.results),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def kill(self) -> None:
        """SIGKILL it: no farewell, no clean-up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """See to it that it is gone."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._errors.close()

    @property
    def failure(self) -> str | None:
        """What it complained of if it ended badly, and was not killed."""
        code = self._process.poll()
        if code is None or code <= 0:
            return None
        self._errors.seek(0)
        return self._errors.read()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.told.put(json.loads(line))


def _environment() -> dict[str, str]:
    """The surroundings without the settings of a service: the tour works on its own."""
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
