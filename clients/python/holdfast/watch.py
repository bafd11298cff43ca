"""What may have happened to a run while nobody looked: its claim lost, a restart asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from holdfast.errors import HoldfastError
from holdfast.run_record import RunRecord

# Beats are at most two intervals apart while this machine is awake and the supervisor runs.
AWAY_INTERVALS = 3.0


class Watch:
    """Looks again after heartbeats failed, or after this process itself was away (stopped, or its
    machine asleep). For a ``with`` block.

    A heartbeat's reply tells of a lost claim once; if just that reply is lost, the fence tells.

    An instance that goes stale is asked to be restarted, if its policy allows. The supervisor is
    told, which has the command at hand: one that lives goes on (decision 10).
    """

    def __init__(
        self, record: RunRecord, interval: float, *, on_restart: Callable[[], None]
    ) -> None:
        self._record = record
        self._interval = interval
        self._on_restart = on_restart
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-watch", daemon=True)
        self._seen = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        last, failures = time.time(), 0
        was_away = has_failed = False
        while not self._over.wait(self._interval):
            # The time of day: other clocks stand still while the machine sleeps.
            now = time.time()
            was_away = was_away or now - last > AWAY_INTERVALS * self._interval
            last = now
            stats = self._record.heartbeats.stats()
            has_failed = has_failed or stats.failures > failures
            failures = stats.failures
            if not (was_away or has_failed) or stats.failures_in_a_row:
                continue
            with suppress(HoldfastError):
                self._look()
                was_away = has_failed = False

    def _look(self) -> None:
        self._record.holds_claims()
        self._look_for_restarts()

    def _look_for_restarts(self) -> None:
        # From this beat on the service does not ask any more.
        if self._record.instance_id is None or not self._record.heartbeats.force(
            self._record.instance_id
        ):
            return
        requests = self._record.restart_requests(self._seen)
        if requests:
            self._seen = requests[-1]
            self._on_restart()
