"""The instance that works in a session: told when it gets one, and when it is taken from it.

An instance that goes on beating although its session, or the item that it had, went to another is
fenced off: its stream says so, and from there its health and the replies to its beats (spec 17).
"""

from __future__ import annotations

from application.engine.unit_of_work import UnitOfWork
from domain.claims.claim import is_work_item
from domain.claims.holder import Holder
from domain.instances.instance import Instance
from domain.instances.instance_events import LeftBecause
from domain.sessions.session import Session


def prepare_workers(work: UnitOfWork, *sessions: Session) -> None:
    """Bring into memory the instances that work in these sessions."""
    ids = {session.instance_id for session in sessions if session.instance_id}
    work.prepare(*((Instance, instance_id) for instance_id in ids))


def worker_of(work: UnitOfWork, holder: Holder | None) -> Instance | None:
    """The open instance that works in a session, or that the holder is itself."""
    if isinstance(holder, Instance):
        return None if holder.has_ended else holder
    if not isinstance(holder, Session) or holder.instance_id is None:
        return None
    instance = work.load(Instance, holder.instance_id)
    return instance if instance.is_known and not instance.has_ended else None


def join(work: UnitOfWork, session: Session) -> None:
    """Whoever works in the session has it from here on."""
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
    """Whoever works in the session has it no more; unless it was its own doing, it was taken."""
    worker = worker_of(work, session)
    if worker is not None:
        worker.leave(work.now, session.key, reason, by=by, is_own=is_own)


def concerned(
    work: UnitOfWork, previous: Holder | None, claimer: Holder
) -> tuple[Instance | None, Instance | None]:
    """Whom a grant may fence off, and whom it gives something to do again; ask before it.

    Most grants concern nobody: an item that was free goes to one who lost nothing.
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
    """Whoever lost its last item to another is fenced off.

    Not while it has another session to work in, or an item in any.
    """
    if loser is None or previous is None:
        return
    sessions = [work.load(Session, key) for key in loser.sessions if key != previous.key]
    held = (resource for holder in (previous, loser, *sessions) for resource in holder.held)
    if (sessions and isinstance(previous, Session)) or any(map(is_work_item, held)):
        return
    session_id = previous.key if isinstance(previous, Session) else None
    loser.lose_work(work.now, item_id, session_id, claimer.key)
