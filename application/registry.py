"""All commands with their handlers, and all events, for the engine and the mapper."""

from __future__ import annotations

from collections.abc import Mapping

from application import (
    claims,
    idempotency,
    instances,
    machines,
    resume,
    sessions,
    supervising,
    tasks,
    work_events,
    work_items,
)
from application.claims import fenced
from application.engine.unit_of_work import Handler
from domain.aggregate import Event
from domain.claims import claim, holder, work_item
from domain.instances import instance_events
from domain.machines import machine
from domain.sessions import session_events

_OWN: Mapping[type, Handler] = {
    **sessions.HANDLERS,
    **tasks.HANDLERS,
    **machines.HANDLERS,
    **instances.HANDLERS,
    **work_events.HANDLERS,
    **supervising.HANDLERS,
    **resume.HANDLERS,
    **claims.HANDLERS,
    **work_items.HANDLERS,
    **idempotency.HANDLERS,
}
# Any command may carry a fence.
HANDLERS: Mapping[type, Handler] = {cls: fenced(handler) for cls, handler in _OWN.items()}

EVENTS: tuple[type[Event], ...] = (
    *session_events.EVENTS,
    *instance_events.EVENTS,
    *holder.EVENTS,
    *machine.EVENTS,
    *claim.EVENTS,
    *work_item.EVENTS,
)
