"""Supervision: a session or an instance has one supervisor at a time, with a fence (spec 17).

A supervisor takes a session or an instance up before it starts a process for it. The sequence
number of that event is its fence; a heartbeat or an end with an earlier fence is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain import liveness
from domain.aggregate import Aggregate, Json
from domain.errors import Supervised, SupervisorReplaced


@dataclass(slots=True, kw_only=True)
class Supervision(Aggregate):
    """The supervision part of the state of a session or an instance.

    A supervisor's name is unique and chosen by it, so that its take-up can be repeated.
    """

    supervisor: str | None = None
    supervisor_fence: int | None = None
    # The supervisor's host, for people to read.
    supervisor_hostname: str | None = None
    supervised_since: datetime | None = None

    @property
    def supervision(self) -> Json:
        """The current supervisor, for the details of an error."""
        return {
            "supervisor": self.supervisor,
            "supervisor_fence": self.supervisor_fence,
            "supervisor_hostname": self.supervisor_hostname,
            "supervised_since": self.supervised_since,
        }

    def require_supervisor(self, fence: int | None) -> None:
        """Raise :class:`SupervisorReplaced` unless the fence is the current supervisor's.

        A request without a fence passes.
        """
        if fence is not None and fence != self.supervisor_fence:
            raise SupervisorReplaced(
                f"Another supervisor has taken up {self.key}."
                if self.supervisor
                else f"{self.key} was given up by this supervisor.",
                details=self.supervision,
            )

    def may_be_taken_up(
        self, by: str, at: datetime, gap_seconds: float, *, seen: int | None, is_gone: bool
    ) -> bool:
        """Whether ``by`` has to be recorded as supervisor; false if it is the supervisor already.

        ``seen`` is the fence that ``by`` read, 0 for none; if it has changed since, this raises
        :class:`Supervised`, as it does while the current supervisor is not ``is_gone``.
        """
        if self.supervisor == by:
            return False
        if self.supervisor is None:
            return True
        came_first = seen is not None and seen != self.supervisor_fence
        if came_first or not is_gone:
            where = f" on {self.supervisor_hostname}" if self.supervisor_hostname else ""
            raise Supervised(
                f"{self.key} is supervised{where}; its last heartbeat was"
                f" {liveness.human_age(gap_seconds)}.",
                details={**self.supervision, "heartbeat_age_seconds": gap_seconds},
            )
        return True

    def supervised_by(
        self, supervisor: str, hostname: str | None, fence: int, at: datetime
    ) -> None:
        """For the events: set the supervisor."""
        self.supervisor, self.supervisor_fence = supervisor, fence
        self.supervisor_hostname, self.supervised_since = hostname, at

    def given_up(self) -> None:
        """For the events: clear the supervisor."""
        self.supervisor = self.supervisor_fence = None
        self.supervisor_hostname = self.supervised_since = None
