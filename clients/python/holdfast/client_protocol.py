"""What heartbeats and managed sessions use of a client. They stand beneath it: it offers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holdfast.api import Claims, Instances, Sessions, Tasks, WorkItems
    from holdfast.outage import Outage
    from holdfast.recorder import Recorder
    from holdfast.request import Request
    from holdfast.spool import Spool


class BeatingClient(Protocol):
    """What a heartbeat sends with."""

    outage: Outage

    def send(self, request: Request, *, retries: int | None = None) -> Any:
        """The body of the reply. Raises :class:`HoldfastError`."""


class ManagingClient(BeatingClient, Protocol):
    """What a managed session or instance makes its calls with."""

    spool: Spool
    sessions: Sessions
    instances: Instances
    tasks: Tasks
    claims: Claims
    work_items: WorkItems

    @property
    def recorder(self) -> Recorder:
        """What keeps the final report if it cannot be sent."""
