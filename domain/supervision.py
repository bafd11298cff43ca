"""Who supervises a session or an instance: one at a time, by a fence of the service's (spec 17).

Whoever starts a process for a session or an instance takes it up first. The number of the event
that says so is the supervisor's fence; a beat or an end that comes with an earlier one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain import liveness
from domain.aggregate import Aggregate, Json
from domain.errors import Supervised, SupervisorReplaced


@dataclass(slots=True, kw_only=True)
class Supervision(Aggregate):
    """The part of a holder's state that says who supervises it.

    A supervisor's name is of its own making, and no other's: that makes taking up repeatable.
    """

    supervisor: str | None = None
    supervisor_fence: int | None = None
    # Where that one runs, for people.
    supervisor_hostname: str | None = None
    supervised_since: datetime | None = None

    @property
    def supervision(self) -> Json:
        """Who supervises it, as those who are refused are told."""
        return {
            "supervisor": self.supervisor,
            "supervisor_fence": self.supervisor_fence,
            "supervisor_hostname": self.supervisor_hostname,
            "supervised_since": self.supervised_since,
        }

    def require_supervisor(self, fence: int | None) -> None:
        """Raise :class:`SupervisorReplaced` for a fence that is not the present supervisor's.

        Who has no supervisor sends none.
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
        """Whether there is anything to be done: false if ``by`` is its supervisor already.

        ``seen`` is the fence that ``by`` saw, 0 for none: if another came first, it is refused.
        ``is_gone`` is whether the present supervisor may be passed over. Raises
        :class:`Supervised`.
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
        """Used by the events: this is its supervisor from here on."""
        self.supervisor, self.supervisor_fence = supervisor, fence
        self.supervisor_hostname, self.supervised_since = hostname, at

    def given_up(self) -> None:
        """Used by the events: nobody supervises it."""
        self.supervisor = self.supervisor_fence = None
        self.supervisor_hostname = self.supervised_since = None
