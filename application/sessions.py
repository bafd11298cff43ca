"""The commands on sessions, and their handlers (S4 2.1, 2.2, 3.2-3.4).

A command's docstring is its summary in OpenAPI; a handler's says what the reply is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import uuid4

from pydantic import StrictBool

from application.claim_view import lost_item
from application.engine.fields import (
    BySupervisor,
    Command,
    Dated,
    Id,
    Label,
    Metadata,
    Name,
    Slot,
    StallThreshold,
    Text,
    UrlId,
)
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.holdings import grant, move, prepare_holdings, release_all
from application.places import Place
from application.session_view import view
from application.supervising import require_session_supervisor
from application.workers import join, leave, prepare_workers
from domain.aggregate import require_room
from domain.claims.claim import Claim, is_work_item
from domain.errors import InvalidInput
from domain.instances.instance import Instance
from domain.sessions.session import Session, SessionStatus


class CreateSession(Dated):
    """Start a session; its place (project, machine, docker slot) must be free."""

    project_id: Id
    machine_id: UrlId
    docker_slot: Slot | None = None
    metadata: Metadata | None = None
    instance_id: Id | None = None
    hostname: Label | None = None
    tty: Name | None = None
    codebase: Name | None = None
    stall_threshold_ms: StallThreshold | None = None
    replace: StrictBool = False
    # If the docker slot is taken, use the next free one.
    any_slot: StrictBool = False
    supervisor: Id | None = None


class UpdateSession(BySupervisor, Dated):
    """Change a session's status, current task (null clears it) or metadata (merged)."""

    session_id: str
    status: SessionStatus | None = None
    current_task_id: Id | None = None
    metadata: Metadata | None = None


class BeatSession(BySupervisor):
    """Record a session's heartbeat."""

    session_id: str
    current_task_id: Id | None = None
    metadata: Metadata | None = None


class MarkFailed(BySupervisor, Dated):
    """Mark a session as failed; its tasks in progress fail and its claims are released."""

    session_id: str
    error_message: Text
    metadata: Metadata | None = None


class EndSession(BySupervisor):
    """End an abandoned session as failed, or superseded if another session took its place."""

    session_id: str
    reason: Text | None = None


class EndPassedOn(Command):
    """End a session whose place another has taken, once it has been silent long enough."""

    session_id: str


class MarkStalled(BySupervisor):
    """Mark a session as stalled; it keeps its place until another session takes it."""

    session_id: str


class NoteOverdue(Command):
    """Record that a session is stalled, if its heartbeat is older than the threshold."""

    session_id: str


class ArchiveSession(Command):
    """Archive a completed or failed session, so that clean-up never deletes it."""

    session_id: str


class PrepareRecovery(Command):
    """Note in a session's metadata that its recovery is being prepared."""

    session_id: str
    clear_machine: StrictBool = False


class RecoverSession(Command):
    """Recover a failed or stalled session: a successor, on any machine, gets its work."""

    session_id: str
    new_machine_id: UrlId
    docker_slot: Slot | None = None
    any_slot: StrictBool = False
    reset_failed_tasks: StrictBool = True


class DeleteSession(BySupervisor):
    """Delete a session and its tasks; their events are kept."""

    session_id: str


class CleanUpSession(Command):
    """Delete a session that ended before ``ended_before`` and is not archived."""

    session_id: str
    ended_before: datetime


def create(work: UnitOfWork, command: CreateSession) -> Reply:
    """201 with the session. An unknown machine is registered."""
    _require_one_wish(command)
    if command.any_slot:
        place = Place.any_free(work, command.project_id, command.machine_id)
    else:
        place = Place.load(work, command.project_id, command.machine_id, command.docker_slot)
    place.machine.require_available()
    place.require_free(replace=command.replace)
    if command.instance_id is not None:
        work.prepare((Instance, command.instance_id))
    session = work.create(Session, str(uuid4()))
    session.open(
        work.now,
        command.project_id,
        command.machine_id,
        docker_slot=place.docker_slot,
        metadata=command.metadata or None,
        instance_id=command.instance_id,
        hostname=command.hostname,
        tty=command.tty,
        codebase=command.codebase,
        stall_threshold_ms=command.stall_threshold_ms,
        supervisor=command.supervisor,
    )
    place.occupy(session)
    join(work, session)
    return _reply(work, session, 201)


def update(work: UnitOfWork, command: UpdateSession) -> Reply:
    """The changed session. Ending a session releases its claims."""
    session = work.load(Session, command.session_id)
    prepare_holdings(work, session)
    prepare_workers(work, session)
    session.require_known()
    require_session_supervisor(session, command)
    require_room(session.metadata, command.metadata)
    was_open = not session.has_ended
    if command.status is not None:
        # A session past its threshold reads as stalled, so its status changes from stalled.
        session.note_overdue(work.now, work.policy.stall_threshold_ms, work.serving)
        session.change_status(work.now, command.status)
    task = command.current_task_id
    if task is None and "current_task_id" in command.model_fields_set:
        task = ""
    session.update(work.now, task, command.metadata)
    if not session.is_live:
        release_all(work, session)
    if was_open and session.status in ("completed", "failed"):
        # A session is completed by whoever works in it, but may be failed by somebody else.
        is_own = session.status == "completed" or command.supervisor_fence is not None
        leave(work, session, session.status, is_own=is_own)
    return _reply(work, session)


def beat(work: UnitOfWork, command: BeatSession) -> Reply:
    """The session, and how long it had been silent before this heartbeat."""
    session = work.load(Session, command.session_id)
    gap, lost = session.gap_seconds(work.now), session.lost_claims
    silent = session.silent_seconds(work.now, work.serving)
    require_session_supervisor(session, command)
    session.beat(work.now, command.current_task_id, command.metadata)
    default_ms = work.policy.stall_threshold_ms
    value = view(session, work.now, default_ms, work.serving)
    value["age_seconds"] = gap
    value["stale"] = silent > session.threshold_seconds(default_ms)
    if lost:
        value["lost_claims"] = lost
    return Reply(value)


def mark_failed(work: UnitOfWork, command: MarkFailed) -> Reply:
    """The failed session. Its tasks in progress have failed, its place is free."""
    session = work.load(Session, command.session_id)
    prepare_holdings(work, session)
    prepare_workers(work, session)
    require_session_supervisor(session, command)
    session.fail(work.now, command.error_message, command.metadata)
    release_all(work, session)
    leave(work, session, "failed", is_own=command.supervisor_fence is not None)
    return _reply(work, session)


def end(work: UnitOfWork, command: EndSession) -> Reply:
    """The failed session; ``outcome`` is ``superseded`` if another session has its place."""
    session = work.load(Session, command.session_id)
    prepare_holdings(work, session)
    prepare_workers(work, session)
    if session.is_known and session.is_live:
        session.require_supervisor(command.supervisor_fence)
    was_open = not session.has_ended
    session.end(work.now, command.reason or "The session was ended by hand.")
    release_all(work, session)
    if was_open:
        leave(work, session, "failed", is_own=command.supervisor_fence is not None)
    return _reply(work, session)


def end_passed_on(work: UnitOfWork, command: EndPassedOn) -> Reply:
    """Whether the session was ended."""
    session = work.load(Session, command.session_id)
    prepare_holdings(work, session)
    ended = session.end_passed_on(work.now, work.policy.claim_stale_seconds, work.serving)
    if ended:
        release_all(work, session)
    return Reply(
        {"ended": ended, "session_id": session.key, "superseded_by": session.superseded_by}
    )


def mark_stalled(work: UnitOfWork, command: MarkStalled) -> Reply:
    """The stalled session. It keeps its place until another takes it."""
    session = work.load(Session, command.session_id)
    require_session_supervisor(session, command)
    session.mark_stalled(work.now)
    return _reply(work, session)


def note_overdue(work: UnitOfWork, command: NoteOverdue) -> Reply:
    """Whether a stall was recorded."""
    session = work.load(Session, command.session_id)
    gap_ms = int(session.gap_seconds(work.now) * 1000)
    stalled = session.note_overdue(work.now, work.policy.stall_threshold_ms, work.serving)
    return Reply(
        {
            "stalled": stalled,
            "session_id": session.key,
            "project_id": session.project_id,
            "machine_id": session.machine_id,
            "time_since_heartbeat_ms": gap_ms,
        }
    )


def archive(work: UnitOfWork, command: ArchiveSession) -> Reply:
    """The archived session."""
    session = work.load(Session, command.session_id)
    session.archive(work.now)
    return _reply(work, session)


def prepare_recovery(work: UnitOfWork, command: PrepareRecovery) -> Reply:
    """The session with ``metadata.recovery_prepared_at``."""
    session = work.load(Session, command.session_id)
    default_ms = work.policy.stall_threshold_ms
    session.require_recoverable(work.now, default_ms, work.serving)
    session.note_overdue(work.now, default_ms, work.serving)
    session.prepare_recovery(work.now, command.clear_machine, default_ms, work.serving)
    return _reply(work, session)


def recover(work: UnitOfWork, command: RecoverSession) -> Reply:
    """201 with the successor; asked again, 200 with the same one (S4 3.3)."""
    _require_one_wish(command)
    original = work.load(Session, command.session_id)
    original.require_known()
    if original.recovered_to:
        original.require_same_recovery(command.new_machine_id)
        return _recovered(work, work.load(Session, original.recovered_to), original, 200)
    default_ms = work.policy.stall_threshold_ms
    original.require_recoverable(work.now, default_ms, work.serving)
    machine_id = command.new_machine_id
    if command.any_slot:
        own = original.docker_slot if machine_id == original.machine_id else None
        place = Place.any_free(work, original.project_id, machine_id, first=own, leaving=original)
    else:
        place = Place.load(work, original.project_id, machine_id, command.docker_slot)
    prepare_holdings(work, original)
    prepare_workers(work, original)
    was_open = not original.has_ended
    released = _released_items(work, original)
    place.machine.require_available()
    place.require_free(leaving=original)
    original.note_overdue(work.now, default_ms, work.serving)
    successor = work.create(Session, str(uuid4()))
    successor.open(
        work.now,
        original.project_id,
        machine_id,
        docker_slot=place.docker_slot,
        metadata=original.inheritance(),
        codebase=original.codebase,
        stall_threshold_ms=original.stall_threshold_ms,
        recovered_from=original.key,
    )
    carried = {"pending", "blocked"}
    if command.reset_failed_tasks:
        carried |= {"failed", "in_progress"}
    for task in original.tasks.values():
        if task.status in carried:
            successor.carry_over(work.now, str(uuid4()), task)
    lost = [lost_item(claim) for claim in released if claim.status != "open"]
    original.recover(work.now, successor.key, command.new_machine_id, lost)
    move(work, filter(is_work_item, original.held), original, successor)
    for claim in released:
        if claim.status == "open":
            grant(work, claim, successor)
    place.occupy(successor, leaving=original)
    release_all(work, original)
    if was_open:
        leave(work, original, "recovered", by=successor.key)
    return _recovered(work, successor, original, 201)


def _released_items(work: UnitOfWork, original: Session) -> list[Claim]:
    """The items whose claims were released when the session failed; its successor may want them."""
    ids = dict.fromkeys(original.released_items)
    work.prepare(*((Claim, item_id) for item_id in ids))
    return [work.load(Claim, item_id) for item_id in ids]


def _recovered(work: UnitOfWork, successor: Session, original: Session, status: int) -> Reply:
    """The successor, and the released items that it could not claim again (spec 17)."""
    reply = _reply(work, successor, status)
    if original.released_items:
        reply.value["lost_items"] = original.lost_items
    return reply


def delete(work: UnitOfWork, command: DeleteSession) -> Reply:
    """204. The session's claims are released."""
    session = work.load(Session, command.session_id)
    session.require_known()
    require_session_supervisor(session, command)
    prepare_holdings(work, session)
    prepare_workers(work, session)
    was_open = not session.has_ended
    release_all(work, session)
    session.delete(work.now)
    if was_open:
        leave(work, session, "deleted", is_own=command.supervisor_fence is not None)
    return Reply({}, 204)


def clean_up(work: UnitOfWork, command: CleanUpSession) -> Reply:
    """How many tasks were deleted with the session; null if it was not deleted."""
    session = work.load(Session, command.session_id)
    prepare_holdings(work, session)
    ended_at = session.completed_at
    if (
        session.is_deleted
        or session.is_live
        or session.archived_at is not None
        or session.metadata.get("archived") is True
        or ended_at is None
        or ended_at >= command.ended_before
    ):
        return Reply({"deleted_tasks": None})
    tasks = len(session.tasks)
    release_all(work, session)
    session.delete(work.now)
    return Reply(
        {
            "deleted_tasks": tasks,
            "session_id": session.key,
            "project_id": session.project_id,
            "completed_at": ended_at,
        }
    )


def _require_one_wish(command: CreateSession | RecoverSession) -> None:
    """Raise ``InvalidInput`` if both ``any_slot`` and a certain place are given."""
    if command.any_slot and command.docker_slot is not None:
        raise InvalidInput.of("any_slot", "does not go with docker_slot")
    if command.any_slot and isinstance(command, CreateSession) and command.replace:
        raise InvalidInput.of("any_slot", "does not go with replace, which is about one place")


def _reply(work: UnitOfWork, session: Session, status: int = 200) -> Reply:
    default_ms = work.policy.stall_threshold_ms
    return Reply(view(session, work.now, default_ms, work.serving), status)


HANDLERS: Mapping[type, Handler] = {
    CreateSession: create,
    UpdateSession: update,
    BeatSession: beat,
    MarkFailed: mark_failed,
    EndSession: end,
    EndPassedOn: end_passed_on,
    MarkStalled: mark_stalled,
    NoteOverdue: note_overdue,
    ArchiveSession: archive,
    PrepareRecovery: prepare_recovery,
    RecoverSession: recover,
    DeleteSession: delete,
    CleanUpSession: clean_up,
}
