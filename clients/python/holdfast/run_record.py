"""What the service is told of a supervised command: an instance, its session, its claim, its end.

While the service is away all of it is kept and sent later, but for the claim: a claim that is not
granted now is none, and a command that was to have one is not started (decision 10).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from holdfast.api.area import part, said
from holdfast.errors import Conflict, HoldfastError, NotFound
from holdfast.git import WorkingCopy
from holdfast.heartbeat import INTERVAL_SECONDS, HeartbeatManager
from holdfast.managed import MESSAGE_LENGTH, this_machine, whereabouts
from holdfast.outcome import Outcome
from holdfast.request import Request, Write
from holdfast.restarts import RestartPolicy, Restarts

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.request import Created
    from holdfast.types import LostClaim


@dataclass(frozen=True)
class Run:
    """What is to be run, and as what. ``grace`` and ``interval`` are seconds."""

    command: Sequence[str]
    project: str
    machine: str | None = None
    slot: int | None = None
    replace: bool = False
    instance_type: str = "PS"
    name: str | None = None
    item: str | None = None
    takeover: bool = False
    complete: bool = False
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    stop_if_fenced: bool = False
    grace: float = 10.0
    interval: float = INTERVAL_SECONDS

    @property
    def line(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.command)[:MESSAGE_LENGTH]


class RunRecord:
    """One run's side of the record. ``on_fence(why)``: the work has become someone else's."""

    def __init__(self, client: Client, run: Run, on_fence: Callable[[str], None]) -> None:
        self._client = client
        self._run = run
        self._copy = WorkingCopy()
        self._on_fence = on_fence
        self.heartbeats = HeartbeatManager(
            client,
            interval=run.interval,
            on_lost_claims=self._note_losses,
            on_ended=self._note_end,
        )
        self.instance_id: str | None = None
        self._session_id: str | None = None
        self._fence: int | None = None
        self._has_lost_claim = False
        self._has_lost_session = False

    def __str__(self) -> str:
        return f"{self._real(self.instance_id)}, session {self._real(self._session_id)}"

    def open(self) -> None:
        """Register, open a session, beat for both, claim the item.

        Raises :class:`HoldfastError` if the service refuses; then nothing of it stays. With an
        item also ``Unavailable``.
        """
        with self._strict(self._run.item is not None):
            if self._run.item is not None and not self._run.takeover:
                self._require_free(self._run.item)
            try:
                self._open()
            except BaseException:
                self.withdraw()
                raise

    def environment(self) -> dict[str, str]:
        """What the command is told: who it is, and how it reaches the service."""
        settings = self._client.settings
        told = {
            "HOLDFAST_URL": settings.url,
            "HOLDFAST_API_KEY": settings.api_key,
            "HOLDFAST_INSTANCE_ID": self._real(self.instance_id),
            "HOLDFAST_SESSION_ID": self._real(self._session_id),
            "HOLDFAST_ITEM": self._run.item,
            "HOLDFAST_FENCE": None if self._fence is None else str(self._fence),
        }
        return {name: value for name, value in told.items() if value is not None}

    def holds_claim(self) -> bool:
        """Whether the claim, if there is one, still is this session's. Raises ``Unavailable``."""
        item = self._run.item
        if item is not None and self._fence is not None and not self._has_lost_claim:
            try:
                self._client.claims.verify(item, self._fence)
            except (Conflict, NotFound) as e:
                self._lose_claim(e.details.get("holder"))
        return not self._has_lost_claim

    def restart_requests(self, after: int) -> list[int]:
        """The sequence numbers of the service's requests to start the command again."""
        instance_id = self._real(self.instance_id)
        if instance_id is None:
            return []
        page = self._client.instances.events(
            instance_id, event_type="restart_requested", order="desc", limit=100
        )
        return sorted(e["sequence_num"] for e in page["events"] if e["sequence_num"] > after)

    def ran(self, outcome: Outcome) -> None:
        """The command ended, for now or for good."""
        data = said(
            command=self._run.line,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            duration_ms=round(outcome.seconds * 1000),
        )
        if self.instance_id is not None:
            self._client.instances.emit(self.instance_id, "command_logged", data)

    def end(self, outcome: Outcome, restarts: Restarts) -> None:
        """It will not be started again. Ending the session releases its claim."""
        self.heartbeats.stop()
        run, session_id = self._run, self._session_id
        metadata = said(exit_code=outcome.exit_code, signal=outcome.signal, restarts=restarts.total)
        if session_id is not None and not self._has_lost_session:
            path = f"/api/sessions/{part(session_id)}"
            if outcome.is_success:
                if run.complete and run.item is not None and not self._has_lost_claim:
                    self._complete_item(run.item)
                self._keep("PATCH", path, {"status": "completed", "metadata": metadata})
            else:
                remark = f" after {restarts.total} restarts" if restarts.exhausted else ""
                message = f"{run.line[:500]}: {outcome}{remark}"
                body = {"error_message": message, "metadata": metadata}
                self._keep("POST", f"{path}/mark-failed", body)
        self._close_instance()

    def withdraw(self) -> None:
        """It was never started: no session stays, and the instance is closed."""
        self.heartbeats.stop()
        if self._session_id is not None:
            self._keep("DELETE", f"/api/sessions/{part(self._session_id)}", {})
        self._close_instance()

    def _open(self) -> None:
        self.instance_id = self._create("instance", "/api/instances", self._instance())
        self.heartbeats.start(self.instance_id, self._describe)
        self._session_id = self._create("session", "/api/sessions", self._session())
        self.heartbeats.start(self._session_id)
        if self._run.item is not None:
            self._claim(self._run.item)

    @contextmanager
    def _strict(self, strict: bool) -> Iterator[None]:
        """Within the block the client does not announce that the work goes on all the same."""
        lenient = self._client.lenient
        self._client.lenient = lenient and not strict
        try:
            yield
        finally:
            self._client.lenient = lenient

    def _require_free(self, item: str) -> None:
        """Before there is anything to be taken back."""
        try:
            claim: Mapping[str, Any] = self._client.claims.get(item)
        except NotFound:
            return
        if claim["holder"] is not None:
            raise Conflict(
                f"{item} is already claimed by {claim['holder_kind']} {claim['holder']}.",
                status=409,
                code="claim_held",
                details={**claim, "claimed_by": claim["holder"]},
            )

    def _claim(self, item: str) -> None:
        claim = self._client.claims.take(
            item, session_id=self._session_id, **whereabouts(), takeover=self._run.takeover
        )
        self._fence = claim["fence"]

    def _complete_item(self, item: str) -> None:
        # A completion that is refused (someone else's by now) is no reason to fail the run.
        with suppress(HoldfastError):
            self._client.work_items.complete(item, session_id=self._session_id, fence=self._fence)

    def _close_instance(self) -> None:
        if self.instance_id is not None:
            self._keep("POST", f"/api/instances/{part(self.instance_id)}/close", {})

    def _create(self, created: Created, path: str, body: Mapping[str, Any]) -> str:
        request = Request("POST", path, body)
        if self._run.item is not None:
            reply = self._client.send(request)
        else:
            write = Write(request, creates=created)
            reply = self._client.recorder.record(write, refusable=True)
        return cast(str, reply[f"{created}_id"])

    def _keep(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        self._client.recorder.record(Write(Request(method, path, body)))

    def _instance(self) -> dict[str, Any]:
        run = self._run
        restart = run.restart.as_json() if run.restart.rule != "never" else None
        return said(
            project=run.project,
            instance_type=run.instance_type,
            name=run.name,
            restart_policy=restart,
            **whereabouts(),
        )

    def _session(self) -> dict[str, Any]:
        run = self._run
        return said(
            project_id=run.project,
            machine_id=run.machine or this_machine(),
            docker_slot=run.slot,
            replace=run.replace or None,
            instance_id=self.instance_id,
            metadata={"command": run.line},
            **whereabouts(),
        )

    def _describe(self) -> dict[str, Any]:
        return {"git": self._copy.state()}

    def _real(self, an_id: str | None) -> str | None:
        """A placeholder is as good: the service knows the id once it knows of the session."""
        return None if an_id is None else self._client.spool.real(an_id) or an_id

    def _note_losses(self, an_id: str, lost: list[LostClaim]) -> None:
        for claim in lost:
            if claim["item_id"] == self._run.item:
                self._lose_claim(claim["taken_by"])

    def _lose_claim(self, holder: str | None) -> None:
        self._has_lost_claim = True
        by = f" by {holder}" if holder else ""
        self._on_fence(f"{self._run.item} was taken over{by}")

    def _note_end(self, an_id: str, error: HoldfastError) -> None:
        if an_id == self._session_id:
            self._has_lost_session = self._has_lost_claim = True
            heir = error.details.get("recovered_to") or error.details.get("superseded_by")
            by = f", {heir} carries on" if heir else ""
            self._on_fence(f"session {an_id} is over{by}")
