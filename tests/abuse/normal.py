"""A well-behaved client, and how it fares."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import httpx

from tests.acceptance.serving import Api, Json, name

# Between two requests of it, in seconds: it is not the load.
PAUSE_SECONDS = 0.01


class Normal(threading.Thread):
    """Beats for sessions and reads them back until it is stopped."""

    def __init__(self, url: str, key: str, namespace: str) -> None:
        super().__init__(name="normal")
        self._api = Api(url, key, namespace)
        self._stopping = threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Beat, read one, read all; and again."""
        with self._api as api:
            session = api.session(project_id=name("normal"))
            path = f"/api/sessions/{session['session_id']}"
            turns: Sequence[tuple[str, str, Json | None]] = (
                ("POST", f"{path}/heartbeat", {"metadata": {"n": 1}}),
                ("GET", path, None),
                ("POST", f"{path}/heartbeat", None),
                ("GET", "/api/sessions?limit=10", None),
                ("GET", "/health", None),
            )
            turn = 0
            while turn < len(turns) or not self._stopping.wait(PAUSE_SECONDS):
                self._ask(*turns[turn % len(turns)])
                turn += 1

    def stop(self) -> None:
        """Finish the request that is under way; each kind was sent once at least."""
        self._stopping.set()
        self.join()

    def _ask(self, method: str, path: str, body: Json | None) -> None:
        began = time.perf_counter()
        try:
            reply = self._api.request(method, path, json=body)
        except httpx.TransportError as e:
            self.failures.append(f"{method} {path}: {e!r}")
        else:
            if not reply.is_success:
                self.failures.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
        self.seconds.append(time.perf_counter() - began)
