"""What the service is told of a supervised command: an instance, its session, its claim, its end.

While the service is away all of it is kept and sent later, but for the claim: a claim that is not
granted now is none, and a command that was to have one is not started. Nor is one that is to carry
on a session or an instance which the service cannot be asked for (decision 10).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from holdfast import lost_work
from holdfast.additions import AddedNumber, AddedText
from holdfast.api.area import part, said
from holdfast.carried_on import (
    Held,
    held_by,
    open_session,
    take_up_instance,
    take_up_session,
    worker_in,
)
from holdfast.errors import Conflict, HoldfastError, NotFound
from holdfast.facts import fact
from holdfast.git import WorkingCopy
from holdfast.heartbeat import INTERVAL_SECONDS, Describe, HeartbeatManager
from holdfast.managed import FIRST_FENCE, MESSAGE_LENGTH
from holdfast.outcome import Outcome
from holdfast.proof import FENCES, told
from holdfast.request import PLACEHOLDER, Request, Write
from holdfast.restarts import RestartPolicy, Restarts
from holdfast.secrets import masked, masked_command
from holdfast.settings import SUPERVISOR
from holdfast.supervision import this_supervisor
from holdfast.whereabouts import this_machine, whereabouts

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.request import Created
    from holdfast.types import Instance, LostClaim, Session


# `docker stop` kills ten seconds after it asked, of which the command has the grace.
GRACE_SECONDS = 8.0
# What the sending of a report gets of it, if the command took all of that, or nothing.
REPORT_SECONDS = (0.5, 2.0)


@dataclass(frozen=True)
class Run:
    """What is to be run, and as what. ``grace`` and ``interval`` are seconds; without ``argv`` no
    more than the program's name is recorded.

    ``session_id`` and ``instance_id`` are carried on, if given; else there are new ones. The
    project is then theirs.
    """

    command: Sequence[str]
    project: str | None = None
    session_id: str | None = None
    instance_id: str | None = None
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
    grace: float = GRACE_SECONDS
    interval: float = INTERVAL_SECONDS
    argv: bool = True

    @property
    def line(self) -> str:
        """The command as one would type it, without the secrets that it may hold."""
        if not self.argv:
            return fact(os.path.basename(self.command[0])) or ""
        return fact(shlex.join(masked_command(self.command)), MESSAGE_LENGTH) or ""

    @property
    def needs_answers(self) -> bool:
        """Whether it may begin only with the service's consent."""
        return any((self.item, self.session_id, self.instance_id))


@contextmanager
def strictly(client: Client, needed: bool = True) -> Iterator[None]:
    """Within the block the client does not announce that the work goes on all the same."""
    lenient = client.lenient
    client.lenient = lenient and not needed
    try:
        yield
    finally:
        client.lenient = lenient


class RunRecord:
    """One run's side of the record. ``on_fence(why, again)``: the work has become someone else's;
    ``again``: it is worth a word although there was one of another loss.

    ``mark`` stands in the environment of all that the run starts.
    """

    def __init__(
        self, client: Client, run: Run, on_fence: Callable[[str, bool], None], mark: str
    ) -> None:
        self._client = client
        self._run = run
        self._copy = WorkingCopy()
        self._on_fence = on_fence
        self.heartbeats = HeartbeatManager(
            client,
            interval=run.interval,
            on_lost_claims=self._note_losses,
            on_ended=self._note_end,
            on_lost_work=lambda an_id, lost: self._lose(lost_work.told(lost)),
        )
        self.instance_id: str | None = None
        self._session_id: str | None = None
        # Which it has on its machine, if it has any.
        self._slot: int | None = None
        # What there was before the run stays if the run does not begin.
        self._made: list[str] = []
        self._held: dict[str, Held] = {}
        # Why the command must not be started again.
        self.loss: str | None = None
        # By what this run supervises its instance and its session, and which others supervise now.
        self._supervisor = str(this_supervisor(mark))
        self._fences: dict[str, int] = {}
        self._lost: set[str] = set()
        # How often the instance that is carried on had been started again before.
        self._restarts_before = 0
        # Of who may be killed soon: what there is to report goes to the disk, and only then out.
        self._is_hurried = False
        self._report: list[Write] = []

    @property
    def supervisor(self) -> str:
        """By what name this run is known to the service, and to whoever comes after it."""
        return self._supervisor

    def __str__(self) -> str:
        slot = "" if self._slot is None else f", docker slot {self._slot}"
        return f"{self._shown(self.instance_id)}, session {self._shown(self._session_id)}{slot}"

    def open(self) -> None:
        """Register, open a session or carry one on, beat for both, claim the item.

        Raises :class:`HoldfastError` if the service refuses; then nothing of it stays. With an
        item, or with something to carry on, also ``Unavailable``.
        """
        with strictly(self._client, self._run.needs_answers):
            try:
                self._open()
            except BaseException as e:
                self.withdraw(hurried=not isinstance(e, HoldfastError))
                raise

    def environment(self) -> dict[str, str]:
        """What the command is told: who it is, and how it reaches the service."""
        settings = self._client.settings
        item = self._run.item
        if item is None and len(self._held) == 1:
            [item] = self._held
        held = self._held.get(item) if item else None
        says = {
            "HOLDFAST_URL": settings.url,
            "HOLDFAST_API_KEY": settings.api_key,
            "HOLDFAST_INSTANCE_ID": self._real(self.instance_id),
            "HOLDFAST_SESSION_ID": self._real(self._session_id),
            SUPERVISOR: self._supervisor,
            FENCES: told({self._real(an_id) or an_id: f for an_id, f in self._fences.items()}),
            "HOLDFAST_ITEM": item,
            "HOLDFAST_FENCE": None if held is None else str(held.fence),
        }
        # What a run around this one said of itself is not said of what this one starts.
        return {name: v or "" for name, v in says.items() if v is not None or name in os.environ}

    def holds_claims(self) -> bool:
        """Whether what it held at its start has gone to no one else. Raises ``Unavailable``."""
        for item, held in [*self._held.items()]:
            try:
                self._client.claims.verify(item, held.fence)
            except (Conflict, NotFound) as e:
                self._note_other_fence(item, held, e.details)
        return self.loss is None

    def is_still_ours(self) -> bool:
        """Whether no one else has taken up its session or instance, as far as the service tells."""
        if not self.heartbeats.stats().failures_in_a_row:
            self.heartbeats.force()
        return self.loss is None

    def restart_requests(self, after: int) -> list[int]:
        """The sequence numbers of the service's requests to start the command again."""
        instance_id = self._real(self.instance_id)
        if instance_id is None:
            return []
        page = self._client.instances.events(
            instance_id, event_type="restart_requested", order="desc", limit=100
        )
        return sorted(e["sequence_num"] for e in page["events"] if e["sequence_num"] > after)

    def started(self, restarts: int, *, answers: bool = False) -> None:
        """The command runs, after so many restarts. ``answers``: whoever asked for one is told."""
        if self.instance_id is not None and (restarts or answers):
            total = self._restarts_before + restarts
            self.heartbeats.say(self.instance_id, at_once=True, restarts=total)

    def ran(self, outcome: Outcome) -> None:
        """The command ended, for now or for good."""
        data = said(
            command=self._run.line,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            duration_ms=round(outcome.seconds * 1000),
        )
        self._is_hurried = outcome.interrupted is not None
        if self.instance_id is not None and self.instance_id not in self._lost:
            path = f"/api/instances/{part(self.instance_id)}/events"
            body = {
                "event_type": "command_logged",
                "event_data": data,
                **self._proof(self.instance_id),
            }
            self._keep("POST", path, body, dated=True)

    def end(self, outcome: Outcome, restarts: Restarts, left: float = 0.0) -> None:
        """It will not be started again. Ending the session releases its claims.

        ``left``: the seconds in which one that was interrupted should be gone.
        """
        run, session_id = self._run, self._session_id
        self._is_hurried = outcome.interrupted is not None
        self.heartbeats.stop(wait=not self._is_hurried)
        total = self._restarts_before + restarts.total
        metadata = said(
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            restarts=total,
            interrupted_by=outcome.interrupted,
            left_running=[*outcome.handed_on] or None,
        )
        if session_id is not None and session_id not in self._lost:
            path = f"/api/sessions/{part(session_id)}"
            if outcome.is_success:
                if run.complete and outcome.completes:
                    self._complete_items()
                body = {"status": "completed", "metadata": metadata, **self._proof(session_id)}
                self._keep("PATCH", path, body)
            else:
                remark = f" after {restarts.total} restarts" if restarts.exhausted else ""
                message = f"{run.line[:500]}: {masked(str(outcome))}{remark}"
                body = {"error_message": message, "metadata": metadata, **self._proof(session_id)}
                self._keep("POST", f"{path}/mark-failed", body)
        if self.instance_id is not None and self.instance_id not in self._lost:
            if restarts.total:
                # A run that ends soon after its last start had no time to say so.
                path = f"/api/instances/{part(self.instance_id)}/heartbeat"
                body = {"restarts": total, **self._proof(self.instance_id)}
                self._keep("POST", path, body)
            self._close(self.instance_id)
        self._hand_in(left)

    def withdraw(self, *, hurried: bool = False) -> None:
        """It was never started: no session of its own stays, and its own instance is closed.

        What there was before is given up, for whoever comes next.
        """
        self._is_hurried = hurried
        self.heartbeats.stop(wait=not hurried)
        for kind, an_id in (("sessions", self._session_id), ("instances", self.instance_id)):
            if an_id is None or an_id not in self._fences:
                continue
            path = f"/api/{kind}/{part(an_id)}"
            if an_id not in self._made:
                self._keep("POST", f"{path}/put-down", self._proof(an_id))
            elif an_id == self._session_id:
                self._keep("DELETE", path, self._proof(an_id))
            else:
                self._close(an_id)
        self._hand_in()

    def _open(self) -> None:
        session = self._found_session()
        instance = self._found_instance(session)
        if self._run.item is not None:
            self._require_free(self._run.item, instance)
        if instance is None:
            body = self._instance(session)
            self.instance_id = self._create("instance", "/api/instances", body)
        else:
            self.instance_id = instance["instance_id"]
            self._restarts_before = instance["restarts"]
        self._session_id = session_id = self._begin(session, instance)
        if instance is not None:
            self._held |= held_by(self._client, instance_id=self.instance_id)
        if session is not None:
            self._held |= held_by(self._client, session_id=session_id)
        # Not before it has its session: an instance without one is told that it has none.
        self._beat(self.instance_id, self._describe)
        self._beat(session_id)
        if self._run.item is not None:
            self._claim(self._run.item, session_id)

    def _found_session(self) -> Session | None:
        """The session to carry on. Raises unless it may be."""
        session_id, instance_id = self._run.session_id, self._run.instance_id
        if session_id is None:
            return None
        return open_session(self._client, session_id, instance_id, takeover=self._run.takeover)

    def _found_instance(self, session: Session | None) -> Instance | None:
        """The instance to carry on: that which is named, or that which the session left behind."""
        if self._run.instance_id is not None:
            return self._client.instances.get(self._run.instance_id)
        return None if session is None else worker_in(self._client, session)

    def _begin(self, session: Session | None, instance: Instance | None) -> str:
        """From here on the supervisor of what is carried on is this one; the session's id."""
        client, by, takeover = self._client, self._supervisor, self._run.takeover
        if session is not None:
            self._fences |= take_up_session(
                client,
                session,
                by,
                takeover=takeover,
                instance_id=self.instance_id,
                instance=instance,
                metadata={"command": self._run.line},
            )
            return session["session_id"]
        if instance is not None:
            self._fences |= take_up_instance(client, instance, by, takeover=takeover)
        return self._create("session", "/api/sessions", self._session(instance))

    def _beat(self, an_id: str, describe: Describe | None = None) -> None:
        self.heartbeats.start(an_id, describe, **self._proof(an_id))

    def _proof(self, an_id: str) -> dict[str, Any]:
        """What shows that it is this supervisor who says something."""
        fence = self._fences.get(an_id)
        return {} if fence is None else {"supervisor_fence": AddedNumber(fence)}

    def _proven(self, holder: dict[str, str]) -> dict[str, Any]:
        """A holder, for whom it is this supervisor who speaks."""
        [an_id] = holder.values()
        return {**holder, **self._proof(an_id)}

    def _require_free(self, item: str, instance: Instance | None) -> None:
        """Before there is anything to be taken back."""
        try:
            claim: Mapping[str, Any] = self._client.claims.get(item)
        except NotFound:
            return
        holder = claim["holder"]
        own = self._run.session_id, instance and instance["instance_id"]
        if holder is None or holder in own:
            return
        if self._run.takeover and self._client.work_items.get(item)["stale"]:
            return
        neighbour = self._neighbour(claim, self._project(instance))
        if neighbour and (self._run.replace or neighbour["status"] == "stalled"):
            # Opening the session takes that one's place, and frees what it holds.
            return
        raise Conflict(
            f"{item} is already claimed by {claim['holder_kind']} {holder}.",
            status=409,
            code="claim_held",
            details={**claim, "claimed_by": holder, "in_this_place": neighbour is not None},
        )

    def _neighbour(self, claim: Mapping[str, Any], project: str | None) -> Session | None:
        """The holder of a claim, if it is a session in the very place that is to be taken."""
        run = self._run
        if claim["holder_kind"] != "session" or run.session_id is not None:
            return None
        holder = self._client.sessions.get(claim["holder"])
        machine = run.machine or this_machine()
        if (holder["machine_id"], holder["docker_slot"]) != (machine, run.slot):
            return None
        # A project may be written in several ways: the service knows which are one.
        there = self._client.sessions.list(
            project_id=project, machine_id=machine, status=holder["status"], limit=100
        )["sessions"]
        is_there = any(one["session_id"] == holder["session_id"] for one in there)
        return holder if is_there else None

    def _claim(self, item: str, session_id: str) -> None:
        held = self._held.get(item)
        holder = held.holder if held else {"session_id": session_id}
        claim = self._client.claims.take(
            item,
            **self._proven(holder),
            **whereabouts(),
            takeover=self._run.takeover,
        )
        self._held[item] = Held(claim["fence"], holder)

    def _complete_items(self) -> None:
        items = [*self._held] if self._run.item is None else [self._run.item]
        for item in items:
            held = self._held.get(item)
            # A completion that is refused (someone else's by now) is no reason to fail the run.
            with suppress(HoldfastError):
                if held is not None:
                    holder = self._proven(held.holder)
                    self._client.work_items.complete(item, **holder, fence=held.fence)

    def _close(self, instance_id: str) -> None:
        self._keep("POST", f"/api/instances/{part(instance_id)}/close", self._proof(instance_id))

    def _create(self, created: Created, path: str, body: Mapping[str, Any]) -> str:
        request = Request("POST", path, {**body, "supervisor": AddedText(self._supervisor)})
        if self._run.needs_answers:
            reply = self._client.send(request)
        else:
            write = Write(request, creates=created)
            reply = self._client.recorder.record(write, refusable=True)
        made = cast(str, reply[f"{created}_id"])
        self._slot = reply.get("docker_slot")
        # Kept for later it will have the number of the event that makes it.
        self._fences[made] = reply.get("supervisor_fence") or FIRST_FENCE
        self._made.append(made)
        return made

    def _keep(
        self, method: str, path: str, body: Mapping[str, Any], *, dated: bool = False
    ) -> None:
        write = Write(Request(method, path, body), dated=dated)
        if self._is_hurried:
            self._report.append(write)
        else:
            self._client.recorder.record(write)

    def _hand_in(self, left: float = 0.0) -> None:
        """Whoever stops a run may kill it soon: its report is on disk before the service is asked
        to take it, which it may never answer.
        """
        if self._report:
            self._client.recorder.keep(self._report)
            self._report = []
            least, most = REPORT_SECONDS
            self._client.recorder.leave_within(min(max(left, least), most))

    def _instance(self, session: Session | None) -> dict[str, Any]:
        run = self._run
        restart = run.restart.as_json() if run.restart.rule != "never" else None
        return said(
            project=session["project_id"] if session else run.project,
            instance_type=run.instance_type,
            name=run.name,
            restart_policy=restart,
            **whereabouts(),
        )

    def _session(self, instance: Instance | None) -> dict[str, Any]:
        run = self._run
        return said(
            project_id=self._project(instance),
            machine_id=run.machine or this_machine(),
            docker_slot=run.slot,
            replace=run.replace or None,
            any_slot=(run.slot is None and not run.replace) or None,
            instance_id=self.instance_id,
            metadata={"command": run.line},
            **whereabouts(),
        )

    def _project(self, instance: Instance | None) -> str | None:
        """The session's: as it is told, or its instance's."""
        found = instance and (instance["project_name"] or instance["project"])
        return self._run.project or found

    def _describe(self) -> dict[str, Any]:
        return {"git": self._copy.state()}

    def _real(self, an_id: str | None) -> str | None:
        """A placeholder is as good: the service knows the id once it knows of the session."""
        return None if an_id is None else self._client.spool.real(an_id) or an_id

    def _shown(self, an_id: str | None) -> str:
        real = self._real(an_id)
        return "not recorded yet" if real is None or PLACEHOLDER.fullmatch(real) else real

    def _note_losses(self, an_id: str, lost: list[LostClaim]) -> None:
        for claim in lost:
            if claim["item_id"] in self._held:
                self._lose_claim(claim["item_id"], claim["taken_by"])

    def _note_other_fence(self, item: str, held: Held, now: Mapping[str, Any]) -> None:
        """The claim is not as it was: another's, nobody's, or taken anew by the command itself."""
        holder = now.get("holder")
        if holder is not None and holder in held.holder.values():
            self._held[item] = held._replace(fence=now["fence"])
        elif holder is not None:
            self._lose_claim(item, holder)
        else:
            # The command gave it back, or completed it.
            self._held.pop(item, None)
            if item == self._run.item:
                self.loss = f"{item} is not claimed any more"

    def _lose_claim(self, item: str, holder: str | None) -> None:
        if self._held.pop(item, None) is not None:
            why = f"{item} was taken over by {holder}" if holder else f"{item} was cancelled"
            self._lose(why, again=True)

    def _note_end(self, an_id: str, error: HoldfastError) -> None:
        heirs = map(error.details.get, ("recovered_to", "superseded_by", "successor"))
        heir = next(filter(None, heirs), None)
        by = f", {heir} carries on" if heir else ""
        self._lost.add(an_id)
        if error.code == "supervisor_replaced":
            where = error.details.get("supervisor_hostname") or "elsewhere"
            kind = "session" if an_id == self._session_id else "instance"
            self._lose(f"{kind} {an_id} was taken up by another holdfast run, on {where}")
        else:
            kind = "session" if an_id == self._session_id else "instance"
            # What became of the session an instance is told as well.
            self._lose(f"{kind} {an_id} is over{by}", again=kind == "instance")

    def _lose(self, why: str, *, again: bool = False) -> None:
        self.loss = why
        self._on_fence(why, again)
