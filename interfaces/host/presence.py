"""Saying, about once a second, that this process can be reached (spec 5).

It is said from the event loop that answers requests, so a process whose loop stands still, or that
is frozen, does not say it; and only while commands are carried out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from application.engine.engine import Engine
from application.engine.serving import ServingRecord
from domain.errors import HoldfastError
from domain.liveness import Serving

# A touch now and then comes late.
NORMAL_SECONDS = 2.0

log = logging.getLogger("holdfast.serving")


class Presence:
    """Keeps the record of serving up to date while the process serves."""

    def __init__(self, record: ServingRecord, engine: Engine) -> None:
        self._record = record
        self._engine = engine
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="holdfast-serving")
        self._task: asyncio.Task[None] | None = None
        self._known: Serving | None = None
        self._has_failed = False
        self._present_at = time.monotonic()

    async def start(self) -> None:
        """Begin, as the last before the process accepts connections: nobody is heard unrecorded."""
        await self._touch()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End. From now on the process is about to go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._executor.shutdown)
        await asyncio.to_thread(self._record.close)

    @property
    def absent_seconds(self) -> float:
        """For how long the database has not been reached, or has taken nothing; 0 if it does."""
        age = time.monotonic() - self._present_at
        return age if age > max(NORMAL_SECONDS, 2 * self._record.pause_seconds) else 0.0

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._record.pause_seconds)
            if self._engine.answers(self._record.tolerance_seconds):
                await self._touch()

    async def _touch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            serving = await loop.run_in_executor(self._executor, self._record.touch)
        except HoldfastError:
            return  # the database is away, and with it the service
        except Exception:
            # Whatever it is may pass. Who stopped touching would be away for ever.
            if not self._has_failed:
                log.exception("touch_failed")
            self._has_failed = True
            return
        self._has_failed = False
        self._present_at = time.monotonic()
        if serving != self._known and serving.since is not None:
            log.info("serving_again", extra=serving._asdict())
        self._known = serving
