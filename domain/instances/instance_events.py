"""What happens to an instance: its life, its sessions, and the work that it records (S0-S2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from sys import intern
from types import new_class
from typing import TYPE_CHECKING, Literal, cast

from domain import liveness
from domain.aggregate import Event, Json, iso
from domain.instances import work_events as work
from domain.instances.hierarchy import Scope
from domain.instances.standing import FOLLOWED, Checkpoint, Standing, quoted

if TYPE_CHECKING:
    from domain.instances.instance import Instance

Activity = Literal["working", "waiting_for_human", "idle"]
# Why an instance works in a session no more.
LeftBecause = Literal[
    "completed", "failed", "deleted", "recovered", "superseded", "replaced", "taken_up", "put_down"
]
# A restarted instance that beats for so long has left its crash loop (spec 17).
CRASH_LOOP_RESET_SECONDS = 600


class InstanceEvent(Event):
    """An instance's event."""


class InstanceRegistered(InstanceEvent):
    """An agent process registered."""

    event_type = "instance_registered"
    project: str
    project_name: str
    instance_type: str
    scope: Scope
    name: str | None = None
    parent_id: str | None = None
    tags: list[str] | None = None
    hostname: str | None = None
    tty: str | None = None
    codebase: str | None = None
    restart_policy: Json | None = None
    context_percent: float | None = None
    current_epic: str | None = None
    predecessor: str | None = None
    # What a successor takes over: the epic, where the work stands, and the restarts so far.
    last_epic: str | None = None
    standing: Json | None = None
    restarts: int | None = None
    # How many ids were drawn until one was free; left out when the first one was.
    draws: int | None = None
    # Whoever registers it to supervise its process.
    supervisor: str | None = None

    def change(self, instance: Instance) -> None:
        for name in (
            "project",
            "project_name",
            "instance_type",
            "scope",
            "name",
            "parent_id",
            "hostname",
            "tty",
            "codebase",
            "restart_policy",
            "context_percent",
            "current_epic",
            "last_epic",
            "predecessor",
        ):
            value = getattr(self, name)
            # Words that many instances share are kept once.
            setattr(instance, name, intern(value) if isinstance(value, str) else value)
        instance.tags = self.tags or []
        instance.restarts = self.restarts or 0
        if self.standing is not None:
            instance.standing = Standing.inherited(self.standing)
        instance.created_at = instance.last_heartbeat = instance.alive_since = self.timestamp
        if self.supervisor is not None:
            instance.supervised_by(
                self.supervisor, self.hostname, self.originator_version, self.timestamp
            )


class InstanceHeartbeat(InstanceEvent):
    """The instance is alive; what it says of itself replaces what it said before."""

    event_type = "instance_heartbeat"
    compact = True
    context_percent: float | None = None
    current_epic: str | None = None
    metrics: Json | None = None
    activity: Activity | None = None
    activity_reason: str | None = None
    git: Json | None = None
    native_session_id: str | None = None
    # How often the process was started again so far, by whoever supervises it.
    restarts: int | None = None

    def change(self, instance: Instance) -> None:
        if instance.status == "stale":
            instance.status, instance.alive_since = "active", self.timestamp
        instance.last_heartbeat = self.timestamp
        instance.lost_claims = []
        for name in ("context_percent", "current_epic", "metrics", "git", "native_session_id"):
            if (value := getattr(self, name)) is not None:
                setattr(instance, name, value)
        if self.activity is not None:
            instance.activity = cast(Activity, intern(self.activity))
            instance.activity_reason = self.activity_reason
            instance.activity_num = self.originator_version
        if self.context_percent is not None:
            instance.context_num = self.originator_version
        if self.current_epic is not None:
            instance.epic_num = self.originator_version
        if self.git is not None:
            instance.git_num = self.originator_version
        if self.restarts is not None:
            if self.restarts <= (instance.told_restarts or 0):
                # What was asked for was not carried out: the process had been silent, not dead.
                instance.restarts, instance.crash_looping = 0, False
            instance.told_restarts = self.restarts
        since = liveness.age_seconds(instance.alive_since or self.timestamp, self.timestamp)
        if (instance.restarts or instance.crash_looping) and since >= CRASH_LOOP_RESET_SECONDS:
            instance.restarts, instance.crash_looping = 0, False


class InstanceTakenUp(InstanceEvent):
    """A supervisor takes up the instance; the event's number is its fence (spec 17).

    It comes with a heartbeat.
    """

    event_type = "instance_taken_up"
    supervisor: str
    hostname: str | None = None
    taken_from: str | None = None

    def change(self, instance: Instance) -> None:
        instance.supervised_by(
            self.supervisor, self.hostname, self.originator_version, self.timestamp
        )


class InstancePutDown(InstanceEvent):
    """The supervisor stopped supervising without having run anything for the instance."""

    event_type = "instance_put_down"

    def change(self, instance: Instance) -> None:
        instance.given_up()


class InstanceStale(InstanceEvent):
    """No heartbeat for longer than the threshold; once for each time that it falls silent."""

    event_type = "instance_stale"
    age_ms: int
    crash_looping: bool | None = None

    def change(self, instance: Instance) -> None:
        instance.status = "stale"
        instance.crash_looping = instance.crash_looping or bool(self.crash_looping)


# So many sessions that it works in are known of one instance: the latest ones.
MOST_SESSIONS = 1_000


class SessionJoined(InstanceEvent):
    """The instance works in a session from here on."""

    event_type = "session_joined"
    session_id: str

    def change(self, instance: Instance) -> None:
        instance.sessions[self.session_id] = True
        if len(instance.sessions) > MOST_SESSIONS:
            # Whether it has another one is all that is asked of them.
            del instance.sessions[next(iter(instance.sessions))]
        instance.lost_work = None


class SessionLeft(InstanceEvent):
    """The instance no longer works in a session.

    ``fenced_off``: it was taken from it, by whom if that is known, and it has no other one.
    """

    event_type = "session_left"
    session_id: str
    reason: LeftBecause
    by: str | None = None
    fenced_off: bool | None = None

    def change(self, instance: Instance) -> None:
        instance.sessions.pop(self.session_id, None)
        if self.fenced_off:
            instance.lost_work = lost_work(
                self.timestamp, self.reason, session_id=self.session_id, by=self.by
            )


class WorkLost(InstanceEvent):
    """Another took over the last item that the instance, or its session, worked on."""

    event_type = "work_lost"
    item_id: str
    by: str
    session_id: str | None = None

    def change(self, instance: Instance) -> None:
        instance.lost_work = lost_work(
            self.timestamp,
            "item_taken_over",
            session_id=self.session_id,
            item_id=self.item_id,
            by=self.by,
        )


class WorkRegained(InstanceEvent):
    """After its work was lost the instance has an item again."""

    event_type = "work_regained"
    item_id: str

    def change(self, instance: Instance) -> None:
        instance.lost_work = None


class InstanceClosed(InstanceEvent):
    """The instance ended."""

    event_type = "instance_closed"
    cascade_from: str | None = None
    reason: str | None = None

    def change(self, instance: Instance) -> None:
        instance.status, instance.closed_at = "closed", self.timestamp


class InstanceResumed(InstanceEvent):
    """A successor carries the instance's work on."""

    event_type = "instance_resumed"
    successor: str

    def change(self, instance: Instance) -> None:
        instance.successor = self.successor


class ChildAdded(InstanceEvent):
    """Another instance became a child of this one."""

    event_type = "child_added"
    child_id: str

    def change(self, instance: Instance) -> None:
        instance.children[self.child_id] = True


class ChildRemoved(InstanceEvent):
    """A child left for another parent, or ended."""

    event_type = "child_removed"
    child_id: str

    def change(self, instance: Instance) -> None:
        instance.children.pop(self.child_id, None)


class ParentChanged(InstanceEvent):
    """The instance has another parent, or none."""

    event_type = "parent_changed"
    parent_id: str | None = None
    previous_parent_id: str | None = None

    def change(self, instance: Instance) -> None:
        instance.parent_id = self.parent_id


class RestartRequested(InstanceEvent):
    """Whoever supervises the process should start it again."""

    event_type = "restart_requested"
    attempt: int
    max_restarts: int
    backoff_seconds: float

    def change(self, instance: Instance) -> None:
        instance.restarts = self.attempt


class WorkRecorded(InstanceEvent):
    """An event of the work-event catalogue; its payload is the event's data."""

    open_payload = True
    takes_request_id = True
    data: Json

    def change(self, instance: Instance) -> None:
        instance.latest[self.event_type] = {
            "sequence_num": self.originator_version,
            "timestamp": iso(self.timestamp),
            "data": self.data,
        }
        if self.event_type in FOLLOWED:
            instance.standing = instance.standing or Standing()
            instance.standing.follow(self.event_type, self.originator_version, self.data)
        epic = self.data.get("epic_id")
        match self.event_type:
            case "epic_started":
                instance.last_epic = instance.current_epic = epic
                instance.epic_num = self.originator_version
            case "epic_completed" | "epic_failed":
                instance.last_epic = epic
                if instance.current_epic == epic:
                    instance.current_epic = None
            case "context_window_updated":
                instance.context_percent = self.data["context_percent"]
                instance.context_num = self.originator_version
            case "checkpoint_created" | "checkpoint_loaded":
                if (state := self.data.get("state")) is not None:
                    instance.checkpoint_state = state
                    instance.checkpoint = Checkpoint(
                        number=self.originator_version,
                        checkpoint_id=self.data.get("checkpoint_id"),
                        label=quoted(self.data.get("label")),
                        from_instance_id=self.data.get("from_instance_id"),
                    )


def _event_class(name: str, catalogued: type[work.WorkEvent]) -> type[WorkRecorded]:
    members = {"__module__": __name__, "__doc__": catalogued.__doc__, "event_type": name}
    made = new_class(catalogued.__name__, (WorkRecorded,), exec_body=lambda ns: ns.update(members))
    return cast(type[WorkRecorded], made)


WORK_EVENTS: Mapping[str, type[WorkRecorded]] = {
    name: _event_class(name, catalogued) for name, catalogued in work.CATALOGUE.items()
}

# Those that the service records of itself; emitting them is not for callers.
INSTANCE_EVENTS: tuple[type[InstanceEvent], ...] = (
    InstanceRegistered,
    InstanceHeartbeat,
    InstanceTakenUp,
    InstancePutDown,
    InstanceStale,
    SessionJoined,
    SessionLeft,
    WorkLost,
    WorkRegained,
    InstanceClosed,
    InstanceResumed,
    ChildAdded,
    ChildRemoved,
    ParentChanged,
    RestartRequested,
)
EVENTS: tuple[type[InstanceEvent], ...] = (*INSTANCE_EVENTS, *WORK_EVENTS.values())


def lost_work(
    at: datetime,
    reason: str,
    *,
    session_id: str | None = None,
    item_id: str | None = None,
    by: str | None = None,
) -> Json:
    """What an instance lost, as it is told."""
    return {
        "reason": reason,
        "session_id": session_id,
        "item_id": item_id,
        "by": by,
        "at": iso(at),
    }
