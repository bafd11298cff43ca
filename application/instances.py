"""The commands on instances, and their handlers (S0, S1, S2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

from application.engine.fields import (
    BySupervisor,
    Command,
    Dated,
    Found,
    Id,
    Integer,
    Kind,
    Label,
    Name,
    Number,
    Tag,
    Text,
)
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.holdings import grant, prepare_holdings, release_all
from application.instance_view import view
from application.supervising import require_instance_supervisor
from domain import identity
from domain.aggregate import Json
from domain.claims.claim import GLOBAL, Claim
from domain.errors import (
    GlobalExists,
    InvalidInput,
    UnknownParent,
    WriteConflict,
    shown_id,
)
from domain.instances.hierarchy import Scope, require_pair
from domain.instances.instance import WITHOUT_SESSION, Instance, RestartRule
from domain.instances.instance_events import Activity
from domain.sessions.session import Session

log = logging.getLogger("holdfast.instances")

# With 16^6 ids a project and type, a thousand draws in a row are taken only in a full project.
MAX_DRAWS = 1_000

Percent = Annotated[Number, Field(ge=0, le=100)]
Count = Annotated[Integer, Field(ge=0, le=2**53)]
Amount = Annotated[Number, Field(ge=0)]


class Part(BaseModel):
    """An object within a command."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InitialContext(Part):
    """What an instance works on when it registers."""

    context_percent: Percent | None = None
    current_epic: Name | None = None


class RestartPolicy(Part):
    """Whether and how often a stale instance should be restarted."""

    policy: RestartRule = "never"
    max_restarts: Count = 3
    backoff_seconds: Amount = 5


class Metrics(Part):
    """How an instance is doing (S1)."""

    active_tasks: Count | None = None
    queue_depth: Count | None = None
    response_time_ms: Amount | None = None
    error_rate: Annotated[Number, Field(ge=0, le=1)] | None = None


class GitState(Part):
    """Where the instance's working copy stands."""

    branch: Name | None = None
    head: Name | None = None
    dirty_files: Count | None = None
    unpushed_commits: Count | None = None


class RegisterInstance(Dated):
    """Register an agent process."""

    project: Id
    instance_type: Kind
    initial_context: InitialContext | None = None
    name: Label | None = None
    scope: Scope = "project"
    parent_id: Id | None = None
    tags: Annotated[list[Tag], Field(max_length=50)] | None = None
    hostname: Label | None = None
    tty: Name | None = None
    codebase: Name | None = None
    restart_policy: RestartPolicy | None = None
    supervisor: Id | None = None

    @field_validator(
        "initial_context",
        mode="before",
        json_schema_input_type=Percent | InitialContext | None,
    )
    @classmethod
    def _object_or_percent(cls, value: object) -> object:
        """A number alone is the percentage (S0 AC3)."""
        if value is None or isinstance(value, dict | InitialContext):
            return value
        return {"context_percent": value}


class BeatInstance(BySupervisor):
    """Record an instance's heartbeat and what it reports about itself."""

    instance_id: str
    context_percent: Percent | None = None
    current_epic: Name | None = None
    metrics: Metrics | None = None
    activity: Activity | None = None
    activity_reason: Text | None = None
    git: GitState | None = None
    native_session_id: Id | None = None
    restarts: Count | None = None


class SetParent(Command):
    """Move an instance below another parent, or make it a root (null)."""

    instance_id: str
    parent_id: Id | None


class CloseInstance(BySupervisor, Dated):
    """Close an instance; with ``cascade``, its descendants too."""

    instance_id: str
    cascade: StrictBool = False
    reason: Text | None = None


class ClosePassedOn(Command):
    """Close an instance that is long stale and whose place or items have passed to others."""

    instance_id: str
    silent_seconds: float
    # The sessions that name it, as far as the read models know.
    sessions: Found[Sequence[str]] = ()


class NoteStale(Command):
    """Record that an instance is stale, if it is."""

    instance_id: str


def register(work: UnitOfWork, command: RegisterInstance) -> Reply:
    """201 with the instance."""
    if command.instance_type not in work.policy.instance_types:
        known = ", ".join(work.policy.instance_types)
        raise InvalidInput.of("instance_type", f"must be one of {known}")
    project = identity.slug(command.project)
    parent = open_parent(work, command.parent_id)
    require_pair(command.scope, parent.scope if parent else None)
    only = only_global(work) if command.scope == "global" else None
    instance, draws = unregistered(work, project, command.instance_type)
    context = command.initial_context or InitialContext()
    policy = command.restart_policy
    instance.register(
        work.now,
        project=project,
        project_name=command.project,
        instance_type=command.instance_type,
        scope=command.scope,
        name=command.name,
        parent_id=command.parent_id,
        tags=list(command.tags or ()) or None,
        hostname=command.hostname,
        tty=command.tty,
        codebase=command.codebase,
        restart_policy=policy.model_dump() if policy else None,
        context_percent=context.context_percent,
        current_epic=context.current_epic,
        draws=draws if draws > 1 else None,
        supervisor=command.supervisor,
    )
    if parent is not None:
        parent.add_child(work.now, instance.key)
    if only is not None:
        grant(work, only, instance)
    return _reply(work, instance, 201)


# The fields of a heartbeat that say nothing about the instance.
NOT_SAID = {"instance_id", "claim", "supervisor_fence"}


def beat(work: UnitOfWork, command: BeatInstance) -> Reply:
    """How long the instance was silent before this heartbeat, and its status now."""
    if command.activity_reason is not None and command.activity is None:
        raise InvalidInput.of("activity_reason", "goes with activity")
    instance = work.load(Instance, command.instance_id)
    gap, lost = instance.gap_seconds(work.now), instance.lost_claims
    silent = instance.silent_seconds(work.now, work.serving)
    require_instance_supervisor(instance, command)
    said = command.model_dump(exclude=NOT_SAID, exclude_none=True)
    instance.beat(work.now, **said)
    value: Json = {
        "instance_id": instance.key,
        "status": instance.status,
        "last_heartbeat": instance.last_heartbeat,
        "age_seconds": gap,
        "stale": silent > work.policy.instance_stale_seconds,
        "context_percent": instance.context_percent,
        "current_epic": instance.current_epic,
    }
    if lost:
        value["lost_claims"] = lost
    if instance.is_without_session:
        value["warnings"] = [WITHOUT_SESSION]
        value["lost_work"] = instance.lost_work
    return Reply(value)


def set_parent(work: UnitOfWork, command: SetParent) -> Reply:
    """The instance. Both parents and the child record the move in one append."""
    instance = work.load(Instance, command.instance_id)
    instance.require_writable()
    parent = open_parent(work, command.parent_id, instance.key)
    previous = work.load(Instance, instance.parent_id) if instance.parent_id else None
    require_pair(instance.scope, parent.scope if parent else None)
    if instance.parent_id != command.parent_id:
        give_parent(work, instance, previous, parent)
    return _reply(work, instance)


def close(work: UnitOfWork, command: CloseInstance) -> Reply:
    """The closed instance, and the descendants that were closed with it."""
    instance = work.load(Instance, command.instance_id)
    instance.require_writable()
    instance.require_supervisor(command.supervisor_fence)
    parent = work.load(Instance, instance.parent_id) if instance.parent_id else None
    below = _open_descendants(work, instance)
    prepare_holdings(work, instance, *below)
    if not command.cascade:
        stale_seconds = work.policy.instance_stale_seconds
        instance.require_childless(
            [
                child.key
                for child in below
                if child.parent_id == instance.key
                and child.status_at(work.now, stale_seconds, work.serving) == "active"
            ]
        )
        below = []
    for descendant in reversed(below):
        _end(work, descendant, cascade_from=instance.key, reason=command.reason)
    _end(work, instance, reason=command.reason)
    if parent is not None and parent.status != "closed":
        parent.remove_child(work.now, instance.key)
    value = _reply(work, instance).value
    value["cascaded"] = [descendant.key for descendant in below]
    return Reply(value)


def close_passed_on(work: UnitOfWork, command: ClosePassedOn) -> Reply:
    """Whether the instance was closed."""
    instance = work.load(Instance, command.instance_id)
    work.prepare(*((Session, session_id) for session_id in command.sessions))
    sessions = [work.load(Session, session_id) for session_id in command.sessions]
    parent = work.load(Instance, instance.parent_id) if instance.parent_id else None
    below = _open_descendants(work, instance)
    stale_seconds = work.policy.instance_stale_seconds
    # After an outage of the service, the instance first gets a full threshold to be heard.
    silent = instance.silent_seconds(work.now, work.serving)
    ended = (
        silent > work.policy.claim_stale_seconds
        and instance.is_passed_on(
            work.now,
            command.silent_seconds,
            has_lost_place=bool(sessions)
            and all(s.has_ended for s in sessions)
            and any(s.recovered_to or s.superseded_by for s in sessions),
        )
        and all(s.has_ended for s in sessions)
        and all(
            child.status_at(work.now, stale_seconds, work.serving) == "stale" for child in below
        )
    )
    if ended:
        _end(work, instance, reason="It was silent, and others have what it worked on.")
        if parent is not None and parent.status != "closed":
            parent.remove_child(work.now, instance.key)
    return Reply({"ended": ended, "instance_id": instance.key})


def note_stale(work: UnitOfWork, command: NoteStale) -> Reply:
    """Whether staleness was recorded."""
    instance = work.load(Instance, command.instance_id)
    gap = instance.gap_seconds(work.now)
    stale = instance.note_stale(work.now, work.policy.instance_stale_seconds, work.serving)
    return Reply(
        {"stale": stale, "instance_id": instance.key, "time_since_heartbeat_ms": int(gap * 1000)}
    )


def _reply(work: UnitOfWork, instance: Instance, status: int = 200) -> Reply:
    stale_seconds = work.policy.instance_stale_seconds
    return Reply(view(instance, work.now, stale_seconds, work.serving), status)


def unregistered(work: UnitOfWork, project: str, instance_type: str) -> tuple[Instance, int]:
    """A new instance under a free id, and how many ids were drawn until one was free (spec 4)."""
    for draw in range(1, MAX_DRAWS + 1):
        drawn = identity.generate(project, instance_type, work.now, work.entropy(draw))
        instance = work.load(Instance, str(drawn))
        if not instance.is_known:
            return instance, draw
        log.info("instance_id_clash", extra={"instance_id": str(drawn), "draw": draw})
    raise WriteConflict(f"No free id for {project}-{instance_type} in {MAX_DRAWS} draws.")


def give_parent(
    work: UnitOfWork, child: Instance, previous: Instance | None, parent: Instance | None
) -> None:
    """Move a child below another parent, or below none; all three record it."""
    if previous is not None:
        previous.remove_child(work.now, child.key)
    if parent is not None:
        parent.add_child(work.now, child.key)
    child.change_parent(work.now, parent.key if parent else None)


def open_parent(
    work: UnitOfWork, parent_id: str | None, child_id: str | None = None
) -> Instance | None:
    """The open parent with this id, which has room for the child or has it already.

    Raises :class:`UnknownParent` if it is missing or closed, or :class:`TooManyChildren`.
    """
    if parent_id is None:
        return None
    parent = work.load(Instance, parent_id)
    if not parent.is_known or parent.status == "closed":
        message = "is closed"
        if not parent.is_known:
            message = f"there is no instance {shown_id(parent_id)}"
        raise UnknownParent.of("parent_id", message)
    parent.require_room_for(child_id)
    return parent


def only_global(work: UnitOfWork) -> Claim:
    """The claim that makes an instance the only global one. Raises :class:`GlobalExists`."""
    claim = work.load(Claim, GLOBAL)
    if claim.holder_id is not None:
        raise GlobalExists(details={"instance_id": claim.holder_id})
    return claim


def _open_descendants(work: UnitOfWork, instance: Instance) -> list[Instance]:
    """All open descendants, parents before children."""
    found: list[Instance] = []
    level: Sequence[Instance] = [instance]
    while level:
        work.prepare(*((Instance, child) for parent in level for child in parent.children))
        level = [
            child
            for parent in level
            for child in (work.load(Instance, child_id) for child_id in parent.children)
            if child.status != "closed"
        ]
        found += level
    return found


def _end(
    work: UnitOfWork, instance: Instance, cascade_from: str | None = None, reason: str | None = None
) -> None:
    instance.close(work.now, cascade_from, reason)
    release_all(work, instance)


HANDLERS: Mapping[type, Handler] = {
    RegisterInstance: register,
    BeatInstance: beat,
    SetParent: set_parent,
    CloseInstance: close,
    ClosePassedOn: close_passed_on,
    NoteStale: note_stale,
}
