"""A registered agent process: its place, its heartbeat, and the work that it records (S0-S2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

from domain import liveness
from domain.aggregate import Event, Json
from domain.claims.holder import Holder
from domain.errors import (
    HasLiveChildren,
    InstanceAlive,
    InstanceEnded,
    InstanceNotFound,
    TooManyChildren,
    UnknownEventType,
)
from domain.instances.hierarchy import Scope
from domain.instances.instance_events import (
    WORK_EVENTS,
    Activity,
    ChildAdded,
    ChildRemoved,
    InstanceClosed,
    InstanceHeartbeat,
    InstancePutDown,
    InstanceRegistered,
    InstanceResumed,
    InstanceStale,
    InstanceTakenUp,
    LeftBecause,
    ParentChanged,
    RestartRequested,
    SessionJoined,
    SessionLeft,
    WorkLost,
    WorkRecorded,
    WorkRegained,
)
from domain.instances.packed import Packed, PackedJson
from domain.instances.standing import Checkpoint, Standing
from domain.liveness import ALWAYS, Serving

InstanceStatus = Literal["active", "stale", "closed"]
INSTANCE_STATUSES: tuple[InstanceStatus, ...] = get_args(InstanceStatus)
Health = Literal["healthy", "degraded", "stale", "closed"]
RestartRule = Literal["never", "on_failure", "always"]
# The reason in the health of an instance that goes on although its work went to another (spec 18).
WITHOUT_SESSION = "working_without_session"

# Children of one instance that have not been closed.
MAX_CHILDREN = 10_000

# From where on a live instance is degraded (spec 17).
DEGRADED_ERROR_RATE = 0.25
DEGRADED_CONTEXT_PERCENT = 90
DEGRADED_RESPONSE_MS = 5_000


@dataclass(slots=True, kw_only=True)
class Instance(Holder):
    """An instance's rules."""

    category: ClassVar[str] = "instance"
    state_version: ClassVar[int] = 3

    project: str = ""
    project_name: str = ""
    instance_type: str = ""
    scope: Scope = "project"
    name: str | None = None
    parent_id: str | None = None
    tags: list[str] = field(default_factory=list)
    restart_policy: Json | None = None
    status: InstanceStatus = "active"
    context_percent: float | None = None
    current_epic: str | None = None
    last_epic: str | None = None
    last_event_type: str | None = None
    metrics: Json | None = None
    activity: Activity | None = None
    activity_reason: str | None = None
    git: Json | None = None
    native_session_id: str | None = None
    alive_since: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    closed_at: datetime | None = None
    # How many restarts were asked for since it last beat for long; then how many its supervisor
    # says that there were.
    restarts: int = 0
    told_restarts: int | None = None
    crash_looping: bool = False
    predecessor: str | None = None
    successor: str | None = None
    checkpoint_state: Json | None = None
    checkpoint: Checkpoint | None = None
    # Made with the first event that it follows: most of what beats has no work recorded.
    standing: Standing | None = None
    # The numbers of the events that last said so; until then the registration is the evidence.
    context_num: int = 1
    epic_num: int = 1
    git_num: int = 1
    activity_num: int = 1
    # The newest event of each type of the catalogue, with its sequence number as evidence.
    latest: PackedJson = field(default_factory=Packed)
    # In the order in which they came.
    children: dict[str, bool] = field(default_factory=dict)
    # The open sessions that it works in; and what was taken from it, while it has nothing else.
    sessions: dict[str, bool] = field(default_factory=dict)
    lost_work: Json | None = None

    # Queries

    @property
    def is_known(self) -> bool:
        """Whether it was registered."""
        return self.version > 0

    @property
    def has_ended(self) -> bool:
        """Whether it is closed, so that others may take what it holds."""
        return self.status == "closed"

    @property
    def is_without_session(self) -> bool:
        """Whether it keeps sending heartbeats although its work went to another."""
        return is_without_session(self.lost_work, self.last_heartbeat, self.activity)

    def status_at(
        self, at: datetime, stale_seconds: float, serving: Serving = ALWAYS
    ) -> InstanceStatus:
        """The status that every reader sees: past the threshold it is ``stale``."""
        overdue = self.status == "active" and self.silent_seconds(at, serving) > stale_seconds
        return "stale" if overdue else self.status

    def health_at(
        self, at: datetime, stale_seconds: float, serving: Serving = ALWAYS
    ) -> tuple[Health, list[str]]:
        """The health that every reader sees, and the reasons unless it is healthy (spec 17)."""
        return health(
            self.status_at(at, stale_seconds, serving),
            self.gap_seconds(at),
            self.metrics,
            self.context_percent,
            self.crash_looping,
            self.is_without_session,
        )

    # Preconditions

    def require_known(self) -> None:
        """Raise :class:`InstanceNotFound` unless it was registered."""
        if not self.is_known:
            raise InstanceNotFound.named(self.key)

    def require_writable(self) -> None:
        """Raise unless it was registered and has not been closed."""
        self.require_known()
        if self.status == "closed":
            details: Json = {"closed_at": self.closed_at}
            if self.successor is not None:
                details["successor"] = self.successor
            raise InstanceEnded(details=details)

    def require_resumable(
        self, at: datetime, stale_seconds: float, serving: Serving = ALWAYS
    ) -> None:
        """Raise :class:`InstanceAlive` for a live instance: its work cannot be taken from it."""
        self.require_known()
        if self.status_at(at, stale_seconds, serving) == "active":
            age, unheard = self.gap_seconds(at), self.unheard_since(serving)
            away = " (the service was away since)" if unheard else ""
            raise InstanceAlive(
                f"Instance {self.key} is active; its last heartbeat was"
                f" {liveness.human_age(age)}{away}. Close it first, or wait until it is stale.",
                details={
                    "instance_id": self.key,
                    "last_heartbeat": self.last_heartbeat,
                    "age_seconds": age,
                    "seconds_until_stale": stale_seconds - self.silent_seconds(at, serving),
                    **({"unknown_since": unheard} if unheard else {}),
                },
            )

    # Life

    def register(self, at: datetime, **fields: Any) -> None:
        """The instance's first event, with the fields of InstanceRegistered."""
        self.record(InstanceRegistered, at, **fields)

    def beat(self, at: datetime, **said: Any) -> None:
        """Record a heartbeat, and what the instance reports about itself."""
        self.require_writable()
        self.record(InstanceHeartbeat, at, **said)

    def take_up(
        self,
        at: datetime,
        stale_seconds: float,
        supervisor: str,
        serving: Serving = ALWAYS,
        *,
        seen: int | None = None,
        takeover: bool = False,
        hostname: str | None = None,
    ) -> bool:
        """Set the supervisor, which counts as a heartbeat; false if it is the supervisor already.

        Raises :class:`~domain.errors.Supervised` while the current supervisor is active, unless
        the caller asks for a takeover because it knows that the current one is gone.
        """
        self.require_writable()
        is_gone = takeover or self.status_at(at, stale_seconds, serving) == "stale"
        if not self.may_be_taken_up(
            supervisor, at, self.gap_seconds(at), seen=seen, is_gone=is_gone
        ):
            return False
        taken_from = self.supervisor
        self.beat(at)
        self.record(
            InstanceTakenUp, at, supervisor=supervisor, hostname=hostname, taken_from=taken_from
        )
        return True

    def put_down(self, at: datetime, fence: int) -> None:
        """Clear the supervisor; repeating it changes nothing."""
        self.require_writable()
        if self.supervisor is not None:
            self.require_supervisor(fence)
            self.record(InstancePutDown, at)

    def join(self, at: datetime, session_id: str) -> None:
        """Note a session that it works in; again changes nothing."""
        if session_id not in self.sessions or self.lost_work is not None:
            self.record(SessionJoined, at, session_id=session_id)

    def leave(
        self,
        at: datetime,
        session_id: str,
        reason: LeftBecause,
        *,
        by: str | None = None,
        is_own: bool = False,
    ) -> None:
        """Note that it works in a session no more."""
        has_another = bool(self.sessions.keys() - {session_id})
        self.record(
            SessionLeft,
            at,
            session_id=session_id,
            reason=reason,
            by=by,
            fenced_off=None if is_own or has_another else True,
        )

    def lose_work(self, at: datetime, item_id: str, session_id: str | None, by: str) -> None:
        """Note that another took over the last item that it worked on."""
        self.record(WorkLost, at, item_id=item_id, session_id=session_id, by=by)

    def regain_work(self, at: datetime, item_id: str) -> None:
        """Note that it has an item again, if it had lost its work."""
        if self.lost_work is not None:
            self.record(WorkRegained, at, item_id=item_id)

    def note_stale(self, at: datetime, stale_seconds: float, serving: Serving = ALWAYS) -> bool:
        """Record that it is stale, if it is; request a restart if its policy says so."""
        if not self.is_known or self.status != "active":
            return False
        if self.status_at(at, stale_seconds, serving) != "stale":
            return False
        policy = self.restart_policy or {"policy": "never"}
        wants_restart = policy["policy"] != "never"
        exhausted = wants_restart and self.restarts >= policy["max_restarts"]
        age_ms = int(self.gap_seconds(at) * 1000)
        self.record(InstanceStale, at, age_ms=age_ms, crash_looping=exhausted or None)
        if wants_restart and not exhausted:
            self.record(
                RestartRequested,
                at,
                attempt=self.restarts + 1,
                max_restarts=policy["max_restarts"],
                backoff_seconds=policy["backoff_seconds"],
            )
        return True

    def close(
        self, at: datetime, cascade_from: str | None = None, reason: str | None = None
    ) -> None:
        """End."""
        self.require_writable()
        self.record(InstanceClosed, at, cascade_from=cascade_from, reason=reason)

    def is_passed_on(self, at: datetime, silent_seconds: float, *, has_lost_place: bool) -> bool:
        """Whether it fell silent so long ago, and others have all that it worked on (spec 7).

        ``has_lost_place``: a session of its own was recovered or superseded, and none is left.
        """
        if not self.is_known or self.status == "closed" or self.held:
            return False
        return self.gap_seconds(at) > silent_seconds and (has_lost_place or bool(self.lost_claims))

    def inheritance(self) -> Json:
        """What a successor registers with, beyond what is its own: hostname, tty, parent."""
        names = ("project", "project_name", "instance_type", "scope", "name", "restart_policy")
        return {
            **{name: getattr(self, name) for name in (*names, "current_epic", "last_epic")},
            "tags": self.tags or None,
            "standing": self.standing.as_json() if self.standing else None,
            "restarts": self.restarts or None,
            "predecessor": self.key,
        }

    def hand_over(self, at: datetime, successor: str) -> None:
        """Record the successor; an open instance is closed by this."""
        self.record(InstanceResumed, at, successor=successor)
        if self.status != "closed":
            self.close(at)

    def require_childless(self, live_children: list[str]) -> None:
        """Raise :class:`HasLiveChildren` if any child is active."""
        if live_children:
            raise HasLiveChildren(details={"children": live_children[:100]})

    # Hierarchy

    def require_room_for(self, child_id: str | None) -> None:
        """Raise :class:`TooManyChildren` if it has as many as it may have, and not this one.

        They stand in its state until they end, which is read whenever anything is decided of it.
        One from before may have more.
        """
        if len(self.children) >= MAX_CHILDREN and child_id not in self.children:
            raise TooManyChildren(
                f"{self.key} has {len(self.children)} children that have not been closed, of at"
                f" most {MAX_CHILDREN}. Close those that are over first, or name another parent.",
                details={"children": len(self.children), "most": MAX_CHILDREN},
            )

    def add_child(self, at: datetime, child_id: str) -> None:
        """Note a child."""
        self.record(ChildAdded, at, child_id=child_id)

    def remove_child(self, at: datetime, child_id: str) -> None:
        """Note that a child has gone to another parent, or ended."""
        if child_id in self.children:
            self.record(ChildRemoved, at, child_id=child_id)

    def change_parent(self, at: datetime, parent_id: str | None) -> None:
        """Note another parent, or none."""
        self.record(ParentChanged, at, parent_id=parent_id, previous_parent_id=self.parent_id)

    # Work

    def record_work(self, at: datetime, event_type: str, data: Json) -> WorkRecorded:
        """Record an event of the catalogue, whose data was validated against it."""
        self.require_writable()
        if event_type not in WORK_EVENTS:
            raise UnknownEventType
        return self.record(WORK_EVENTS[event_type], at, data=data)

    # For the events

    def touched(self, event: Event) -> None:
        """Every event is the latest for a moment."""
        self.updated_at = event.timestamp
        self.last_event_type = event.event_type


def health(
    status: InstanceStatus,
    age_seconds: float,
    metrics: Json | None,
    context_percent: float | None,
    crash_looping: bool,
    without_session: bool = False,
) -> tuple[Health, list[str]]:
    """How an instance is, and why (spec 17)."""
    if status == "closed":
        return "closed", ["closed"]
    if status == "stale":
        return "stale", [f"no heartbeat for {int(age_seconds)} s"]
    said = metrics or {}
    reasons = []
    if said.get("error_rate", 0) >= DEGRADED_ERROR_RATE:
        reasons.append(f"error rate {said['error_rate']:g}")
    if (context_percent or 0) >= DEGRADED_CONTEXT_PERCENT:
        reasons.append(f"context {context_percent:g}% full")
    if said.get("response_time_ms", 0) >= DEGRADED_RESPONSE_MS:
        reasons.append(f"response time {said['response_time_ms']:g} ms")
    if crash_looping:
        reasons.append("crash loop")
    if without_session:
        reasons.append(WITHOUT_SESSION)
    return ("degraded", reasons) if reasons else ("healthy", [])


def restarts_of(asked: int, told: int | None, supervisor: str | None) -> int:
    """How often it was started again: as its supervisor tells, or as often as that was asked.

    A supervisor tells of the first one: what was asked of one that is gone has not happened.
    """
    if told is None:
        return asked if supervisor is None else 0
    return told


def is_without_session(
    lost: Json | None, last_heartbeat: datetime | None, activity: Activity | None
) -> bool:
    """Whether an instance goes on: it has beaten since it lost its work, and is not idle."""
    if lost is None or last_heartbeat is None or activity == "idle":
        return False
    return last_heartbeat >= datetime.fromisoformat(lost["at"].replace("Z", "+00:00"))
