"""Commands on their way through the engine, and how their senders are woken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from application.engine.unit_of_work import Context, Outcome

log = logging.getLogger("holdfast.engine")


class Submission:
    """Commands that were submitted together; ``through`` is done once all are answered."""

    def __init__(self, size: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.through = self.loop.create_future()
        # Counted down by one thread at a time: the writer, or the one that calls ``give_up``.
        self.open = size


@dataclass(slots=True, eq=False)
class Job:
    """A command, and its outcome or error once there is one."""

    command: object
    context: Context
    submission: Submission
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def result(self) -> Outcome | BaseException:
        """The outcome or the error, once there is one."""
        return self.outcome or self.error or RuntimeError("no outcome")


def deliver(jobs: Iterable[Job]) -> None:
    """Wake the senders whose jobs are now all answered, with one call per event loop."""
    through: dict[asyncio.AbstractEventLoop, list[Submission]] = {}
    for job in jobs:
        submission = job.submission
        submission.open -= 1
        if submission.open == 0:
            through.setdefault(submission.loop, []).append(submission)
    for loop, submissions in through.items():
        try:
            loop.call_soon_threadsafe(_wake, submissions)
        except RuntimeError:
            log.warning("nobody_waits_any_more")  # the loop was closed while stopping


def _wake(submissions: Sequence[Submission]) -> None:
    for submission in submissions:
        if not submission.through.done():  # else the sender has gone
            submission.through.set_result(None)
