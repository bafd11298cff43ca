"""The instance that works in a session: it is told when it gets a session or loses it.

An instance that keeps sending heartbeats although its session or its item went to another is
fenced off: an event records it, and its health and the replies to its heartbeats show it (spec 17).
"""

from __future__ import annotations

from application.engine.unit_of_work import UnitOfWork
from domain.claims.claim import is_work_item
from domain.claims.holder import Holder
from domain.errors import UnknownInstance, UnknownSession, shown_id
from domain.instances.instance import Instance
from domain.instances.instance_events import LeftBecause
from domain.sessions.session import Session


def named_session(work: UnitOfWork, session_id: str) -> Session:
    """The session that a field ``session_id`` names. Raises :class:`UnknownSession`."""
    session = work.load(Session, session_id)
    if not session.is_known:
        raise UnknownSession.of("session_id", f"there is no session {shown_id(session.key)}")
    return session


def named_instance(work: UnitOfWork, instance_id: str) -> Instance:
    """The instance that a field ``instance_id`` names. Raises :class:`UnknownInstance`."""
    instance = work.load(Instance, instance_id)
    if not instance.is_known:
        raise UnknownInstance.of("instance_id", f"there is no instance {shown_id(instance.key)}")
    return instance


def prepare_workers(work: UnitOfWork, *sessions: Session) -> None:
    """Load the instances that work in these sessions."""
    ids = {session.instance_id for session in sessions if session.instance_id}
    work.prepare(*((Instance, instance_id) for instance_id in ids))


def worker_of(work: UnitOfWork, holder: Holder | None) -> Instance | None:
    """The open instance that works in the session; the holder itself if it is an instance."""
    if isinstance(holder, Instance):
        return None if holder.has_ended else holder
    if not isinstance(holder, Session) or holder.instance_id is None:
        return None
    instance = work.load(Instance, holder.instance_id)
    return instance if instance.is_known and not instance.has_ended else None


def join(work: UnitOfWork, session: Session) -> None:
    """Record that the session's instance works in it from now on."""
    worker = worker_of(work, session)
    if worker is not None:
        worker.join(work.now, session.key)


def leave(
    work: UnitOfWork,
    session: Session,
    reason: LeftBecause,
    *,
    by: str | None = None,
    is_own: bool = False,
) -> None:
    """Record that the session's instance has left it; unless ``is_own``, it was taken from it."""
    worker = worker_of(work, session)
    if worker is not None:
        worker.leave(work.now, session.key, reason, by=by, is_own=is_own)


def concerned(
    work: UnitOfWork, previous: Holder | None, claimer: Holder
) -> tuple[Instance | None, Instance | None]:
    """The instances that a grant may fence off or give work again. Call before the grant.

    Mostly none: a free item goes to an instance that has lost nothing.
    """
    if previous is not None and previous.has_ended:
        previous = None
    if previous is None and isinstance(claimer, Session) and not claimer.lost_last_item:
        return None, None
    prepare_workers(work, *(h for h in (previous, claimer) if isinstance(h, Session)))
    loser = worker_of(work, previous)
    if loser is not None:
        work.prepare(*((Session, session_id) for session_id in loser.sessions))
    return loser, worker_of(work, claimer)


def note_takeover(
    work: UnitOfWork, item_id: str, loser: Instance | None, previous: Holder | None, claimer: Holder
) -> None:
    """Fence off an instance that lost its last item to another.

    Not while it has another session to work in, or an item in one.
    """
    if loser is None or previous is None:
        return
    sessions = [work.load(Session, key) for key in loser.sessions if key != previous.key]
    held = (resource for holder in (previous, loser, *sessions) for resource in holder.held)
    if (sessions and isinstance(previous, Session)) or any(map(is_work_item, held)):
        return
    session_id = previous.key if isinstance(previous, Session) else None
    loser.lose_work(work.now, item_id, session_id, claimer.key)
