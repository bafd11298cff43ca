"""Sessions and instances for ``with`` blocks: opened, kept alive, and ended (S4 4.3)."""

from __future__ import annotations

import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from holdfast.additions import AddedNumber, AddedText
from holdfast.api.area import part
from holdfast.client_protocol import ManagingClient
from holdfast.endings import Terminated, endings
from holdfast.errors import HoldfastError
from holdfast.facts import fact
from holdfast.heartbeat import INTERVAL_SECONDS, HeartbeatManager, OnEnded, OnLostClaims
from holdfast.request import Request, Write
from holdfast.secrets import masked
from holdfast.supervision import this_supervisor
from holdfast.types import Claim, Json, LostClaim, WorkItem
from holdfast.whereabouts import this_machine, whereabouts

log = logging.getLogger("holdfast")

# The service takes 10,000 characters.
MESSAGE_LENGTH = 2_000
# Another thread is just reporting it.
ENDING_SECONDS = 1.0
# A supervisor's fence of what is made by it.
FIRST_FENCE = 1


class Managed:
    """A session or instance that is open during a ``with`` block.

    ``id`` is its id: a placeholder while the service is away, ``None`` if the service refused it.
    ``ended`` is set if the service says that it is over (superseded, recovered elsewhere, closed):
    the error that said so. The block is not interrupted for that. ``heartbeats`` sends its
    heartbeats.

    It is also ended, as failed, if a signal ends the process (:mod:`holdfast.endings`) or the
    process exits within the block. Forked children of the process do not end it.
    """

    kind: str

    def __init__(
        self,
        client: ManagingClient,
        *,
        interval: float,
        on_lost_claims: OnLostClaims | None,
        on_ended: OnEnded | None,
    ) -> None:
        self._client = client
        self._on_ended = on_ended
        self._lock = threading.Lock()
        self._given_id: str | None = None
        self._process = 0
        self._ending = threading.RLock()
        self._is_over = True
        self._fence: int | None = None
        self.ended: HoldfastError | None = None
        self.heartbeats = HeartbeatManager(
            client, interval=interval, on_lost_claims=on_lost_claims, on_ended=self._note_end
        )

    @property
    def id(self) -> str | None:
        """Its id, or ``None`` if it is not recorded."""
        if self._given_id is None:
            return None
        return self._client.spool.real(self._given_id) or self._given_id

    @property
    def lost_claims(self) -> list[LostClaim]:
        """The claims that others took over while it was silent."""
        return self.heartbeats.stats().lost_claims

    def say(self, **fields: Any) -> None:
        """Send these fields with every heartbeat from the next one on; ``None`` removes one."""
        if self._given_id is not None:
            self.heartbeats.say(self._given_id, **fields)

    def claim(self, item_id: str, *, takeover: bool = False) -> Claim:
        """Claim a work item. Raises ``Conflict`` if another holds it, lenient or not."""
        return self._client.claims.take(
            item_id, **self._holder(), **whereabouts(), takeover=takeover
        )

    def claim_next(self, *, track: str | None = None, takeover: bool = False) -> Claim | None:
        """Claim the first item that is free; ``None`` if there is none.

        With ``takeover`` also one whose holder has been silent past the threshold.
        """
        return self._client.work_items.claim_next(
            **self._holder(), **whereabouts(), track=track, takeover=takeover
        )

    def release(self, item_id: str, *, fence: int | None = None) -> Claim:
        """Release an item."""
        return self._client.claims.release(item_id, **self._holder(), fence=fence)

    def complete_item(self, item_id: str, *, fence: int | None = None) -> WorkItem:
        """Complete an item."""
        return self._client.work_items.complete(item_id, **self._holder(), fence=fence)

    def _holder(self) -> dict[str, Any]:
        if self.id is None:
            raise HoldfastError(f"This {self.kind} is not recorded.", code="not_recorded")
        return {f"{self.kind}_id": self.id, **self._proof()}

    def _supervise(self, made: Mapping[str, Any]) -> str | None:
        """Look after what was made with :meth:`_supervisor`; its id."""
        self._given_id = made.get(f"{self.kind}_id")
        if self._given_id is not None:
            # What is kept for later will have the number of the event that makes it.
            self._fence = made.get("supervisor_fence") or FIRST_FENCE
        return self._given_id

    def _supervisor(self) -> str:
        """This process, as whoever would take up what it looks after sees it."""
        return AddedText(this_supervisor(uuid.uuid4().hex))

    def _proof(self) -> dict[str, Any]:
        """What shows that nobody else has taken it up, which goes with all that is said of it."""
        return {} if self._fence is None else {"supervisor_fence": AddedNumber(self._fence)}

    def _report(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """What the end was like: kept if it cannot be sent, even by a client that is strict."""
        self._client.recorder.record(Write(Request(method, path, body)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A child of the process that opened it (``fork``) leaves the block as well.
        if os.getpid() == self._process:
            self._end(failure(error))

    def abandon(self, why: str) -> None:
        """Report the end of what is open still when its process ends."""
        self._end(why)

    def _begin(self) -> None:
        """Before there is anything that would have to be ended."""
        self._process = os.getpid()
        self._is_over = False
        endings.begin(self)

    def _end(self, message: str | None) -> None:
        """It ended well, or because of this; said once, or again if the saying was interrupted."""
        if not self._ending.acquire(timeout=ENDING_SECONDS):
            return
        try:
            if self._is_over:
                return
            self.heartbeats.stop()
            if self._given_id is not None:
                self._report_end(self._given_id, message)
            self._is_over = True
            endings.end(self)
        finally:
            self._ending.release()

    def _report_end(self, an_id: str, message: str | None) -> None:
        raise NotImplementedError

    def _note_end(self, an_id: str, error: HoldfastError) -> None:
        self.ended = error
        if self._on_ended is not None:
            self._on_ended(an_id, error)


class ManagedTask:
    """A unit of a session's progress."""

    def __init__(self, task_id: str | None) -> None:
        self.id = task_id


class ManagedSession(Managed):
    """``with client.session("odin") as session:``"""

    kind = "session"

    def __init__(
        self,
        client: ManagingClient,
        project_id: str,
        machine_id: str | None = None,
        *,
        interval: float = INTERVAL_SECONDS,
        on_lost_claims: OnLostClaims | None = None,
        on_ended: OnEnded | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(
            client, interval=interval, on_lost_claims=on_lost_claims, on_ended=on_ended
        )
        self.project_id = project_id
        self.machine_id = machine_id or this_machine()
        self._fields = {**whereabouts(), **fields}
        self._tasks: list[str] = []

    def __enter__(self) -> ManagedSession:
        self._begin()
        fields = {"supervisor": self._supervisor(), **self._fields}
        made = self._client.sessions.create(self.project_id, self.machine_id, **fields)
        if (session_id := self._supervise(made)) is not None:
            self.heartbeats.start(session_id, self._describe, **self._proof())
        return self

    def _report_end(self, an_id: str, message: str | None) -> None:
        path = f"/api/sessions/{part(an_id)}"
        if message is None:
            self._report("PATCH", path, {"status": "completed", **self._proof()})
        else:
            body = {"error_message": message, **self._proof()}
            self._report("POST", f"{path}/mark-failed", body)

    @contextmanager
    def task(
        self,
        task_name: str,
        *,
        github_issue_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[ManagedTask]:
        """A task that is in progress within the block; it fails if the block does."""
        tasks = self._client.tasks
        task_id = None
        if self._given_id is not None:
            created = tasks.create(
                self._given_id,
                self.project_id,
                task_name,
                github_issue_id=github_issue_id,
                metadata=metadata,
                **self._proof(),
            )
            task_id = created.get("task_id")
        if task_id is None:
            yield ManagedTask(None)
            return
        tasks.start(task_id, **self._proof())
        with self._lock:
            self._tasks.append(task_id)
        path = f"/api/tasks/{part(task_id)}"
        try:
            yield ManagedTask(task_id)
        except BaseException as e:
            message = failure(e)
            body = {"status": "failed", "error_message": message} if message else _COMPLETED
            self._finish(task_id, path, body)
            raise
        self._finish(task_id, path, _COMPLETED)

    def _finish(self, task_id: str, path: str, body: Mapping[str, Any]) -> None:
        with self._lock:
            self._tasks.remove(task_id)
        self._report("PATCH", path, {**body, **self._proof()})

    def _describe(self) -> Json:
        with self._lock:
            current = self._tasks[-1] if self._tasks else None
        # A task that the service does not know yet would only be refused.
        return {"current_task_id": current and self._client.spool.real(current)}


class ManagedInstance(Managed):
    """``with client.instance("odin") as agent:``"""

    kind = "instance"

    def __init__(
        self,
        client: ManagingClient,
        project: str,
        instance_type: str = "PS",
        *,
        interval: float = INTERVAL_SECONDS,
        on_lost_claims: OnLostClaims | None = None,
        on_ended: OnEnded | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(
            client, interval=interval, on_lost_claims=on_lost_claims, on_ended=on_ended
        )
        self.project = project
        self.instance_type = instance_type
        self._fields = {**whereabouts(), **fields}

    def __enter__(self) -> ManagedInstance:
        self._begin()
        fields = {"supervisor": self._supervisor(), **self._fields}
        made = self._client.instances.register(self.project, self.instance_type, **fields)
        if (instance_id := self._supervise(made)) is not None:
            self.heartbeats.start(instance_id, **self._proof())
        return self

    def _report_end(self, an_id: str, message: str | None) -> None:
        path = f"/api/instances/{part(an_id)}"
        if message is not None:
            data = {"command": masked(sys.argv[0] or "python"), "exit_code": 1, "error": message}
            body = {"event_type": "command_logged", "event_data": data, **self._proof()}
            self._report("POST", f"{path}/events", body)
        self._report("POST", f"{path}/close", self._proof())

    def emit(self, event_type: str, data: Mapping[str, Any] | None = None, **fields: Any) -> Json:
        """Record an event of the catalogue; its fields are given by name or in ``data``."""
        if self._given_id is None:
            return {}
        event_data = {**(data or {}), **fields}
        emitted = self._client.instances.emit(
            self._given_id, event_type, event_data, **self._proof()
        )
        return dict(emitted)

    def checkpoint(self, label: str, state: Mapping[str, Any]) -> Json:
        """Save a state from which the work can be resumed."""
        if self._given_id is None:
            return {}
        kept = self._client.instances.checkpoint(self._given_id, label, state, **self._proof())
        return dict(kept)

    def session(self, machine_id: str | None = None, **fields: Any) -> ManagedSession:
        """A session for this instance, in its project."""
        return ManagedSession(self._client, self.project, machine_id, instance_id=self.id, **fields)


_COMPLETED: Mapping[str, Any] = {"status": "completed"}


def failure(error: BaseException | None) -> str | None:
    """What went wrong, for people; ``None`` if nothing did."""
    match error:
        case None | SystemExit(code=None | 0):
            return None
        case Terminated():
            message = str(error)
        case SystemExit(code=code):
            message = f"exited with {code}"
        case KeyboardInterrupt():
            message = "interrupted (KeyboardInterrupt)"
        case _ if endings.cause is not None and type(error).__name__ == "CancelledError":
            # An event loop that ends cancels its tasks.
            message = endings.cause
        case _:
            message = f"{type(error).__name__}: {error}".rstrip(": ")
    return fact(masked(message), MESSAGE_LENGTH)
