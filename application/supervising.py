"""Who supervises a session or an instance: taking it up, and putting it down (spec 17)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import StrictBool

from application import instance_view, session_view
from application.engine.fields import (
    BySupervisor,
    Command,
    FenceNumber,
    Id,
    Label,
    Metadata,
    SeenFence,
)
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.workers import join, named_instance, prepare_workers, worker_of
from domain.errors import InvalidInput
from domain.instances.instance import Instance
from domain.sessions.session import Session


class TakeUpSession(Command):
    """Become a session's supervisor, unless another supervises it.

    ``supervisor`` is a name that only the caller uses. ``seen_fence`` is the fence of the current
    supervisor as the caller read it, 0 if there was none. ``takeover`` replaces the current
    supervisor even if it was heard from recently.

    With ``seen_instance_fence`` the session's instance is taken up in the same command, by the
    same rule: both or neither. ``takeover_instance`` is ``takeover`` for the instance.
    """

    session_id: str
    supervisor: Id
    seen_fence: SeenFence | None = None
    takeover: StrictBool = False
    hostname: Label | None = None
    instance_id: Id | None = None
    seen_instance_fence: SeenFence | None = None
    takeover_instance: StrictBool = False
    metadata: Metadata | None = None


class PutDownSession(Command):
    """Stop supervising a session."""

    session_id: str
    supervisor_fence: FenceNumber


class TakeUpInstance(Command):
    """Become an instance's supervisor, unless another supervises it.

    The fields are those of :class:`~application.sessions.TakeUpSession`.
    """

    instance_id: str
    supervisor: Id
    seen_fence: SeenFence | None = None
    takeover: StrictBool = False
    hostname: Label | None = None


class PutDownInstance(Command):
    """Stop supervising an instance."""

    instance_id: str
    supervisor_fence: FenceNumber


def take_up_session(work: UnitOfWork, command: TakeUpSession) -> Reply:
    """The session with the caller's new fence; the old supervisor's fence is refused from now on.

    If the instance was taken up too, ``instance_supervisor_fence`` is the fence for the instance.
    """
    session = work.load(Session, command.session_id)
    prepare_workers(work, session)
    if command.instance_id is not None:
        work.prepare((Instance, command.instance_id))
    former = worker_of(work, session)
    instance = _taken_up_with_it(work, command)
    taken = session.take_up(
        work.now,
        work.policy.stall_threshold_ms,
        command.supervisor,
        work.serving,
        seen=command.seen_fence,
        takeover=command.takeover,
        hostname=command.hostname,
        instance_id=command.instance_id,
        metadata=command.metadata,
    )
    if taken:
        if former is not None and former.key != session.instance_id:
            former.leave(work.now, session.key, "taken_up", by=session.instance_id)
        join(work, session)
    reply = _session_reply(work, session)
    if instance is not None:
        _take_up_instance(
            work, instance, command, command.seen_instance_fence, command.takeover_instance
        )
        reply.value["instance_supervisor_fence"] = instance.supervisor_fence
    return reply


def _taken_up_with_it(work: UnitOfWork, command: TakeUpSession) -> Instance | None:
    """The instance to take up with the session. Raises unless it is named and known."""
    if command.seen_instance_fence is None:
        if command.takeover_instance:
            raise InvalidInput.of("takeover_instance", "goes with seen_instance_fence")
        return None
    if command.instance_id is None:
        raise InvalidInput.of("seen_instance_fence", "goes with instance_id")
    return named_instance(work, command.instance_id)


def put_down_session(work: UnitOfWork, command: PutDownSession) -> Reply:
    """The session, without a supervisor."""
    session = work.load(Session, command.session_id)
    prepare_workers(work, session)
    if session.instance_before is not None:
        work.prepare((Instance, session.instance_before))
    worker = worker_of(work, session)
    session.put_down(work.now, command.supervisor_fence)
    if worker is not None and worker.key != session.instance_id:
        worker.leave(work.now, session.key, "put_down", is_own=True)
        join(work, session)
    return _session_reply(work, session)


def take_up_instance(work: UnitOfWork, command: TakeUpInstance) -> Reply:
    """The instance with the caller's new fence."""
    instance = work.load(Instance, command.instance_id)
    _take_up_instance(work, instance, command, command.seen_fence, command.takeover)
    return _instance_reply(work, instance)


def _take_up_instance(
    work: UnitOfWork,
    instance: Instance,
    command: TakeUpSession | TakeUpInstance,
    seen: int | None,
    takeover: bool,
) -> None:
    instance.take_up(
        work.now,
        work.policy.instance_stale_seconds,
        command.supervisor,
        work.serving,
        seen=seen,
        takeover=takeover,
        hostname=command.hostname,
    )


def put_down_instance(work: UnitOfWork, command: PutDownInstance) -> Reply:
    """The instance, without a supervisor."""
    instance = work.load(Instance, command.instance_id)
    instance.put_down(work.now, command.supervisor_fence)
    return _instance_reply(work, instance)


# Shared with the other commands


def require_session_supervisor(session: Session, command: BySupervisor) -> None:
    """Refuse a stale supervisor's fence; for an ended session say that it has ended instead."""
    if command.supervisor_fence is not None:
        if session.superseded_by or session.recovered_to or not session.is_known:
            session.require_writable()
        session.require_supervisor(command.supervisor_fence)


def require_instance_supervisor(instance: Instance, command: BySupervisor) -> None:
    """Refuse a stale supervisor's fence; for a closed instance say that it is closed instead."""
    if command.supervisor_fence is not None:
        instance.require_writable()
        instance.require_supervisor(command.supervisor_fence)


def _session_reply(work: UnitOfWork, session: Session) -> Reply:
    default_ms = work.policy.stall_threshold_ms
    return Reply(session_view.view(session, work.now, default_ms, work.serving))


def _instance_reply(work: UnitOfWork, instance: Instance) -> Reply:
    stale_seconds = work.policy.instance_stale_seconds
    return Reply(instance_view.view(instance, work.now, stale_seconds, work.serving))


HANDLERS: Mapping[type, Handler] = {
    TakeUpSession: take_up_session,
    PutDownSession: put_down_session,
    TakeUpInstance: take_up_instance,
    PutDownInstance: put_down_instance,
}
