"""All commands with their handlers, and all events: what the engine and the mapper know."""

from __future__ import annotations

from collections.abc import Mapping

from application import idempotency, instances, machines, sessions, tasks
from application.work import Handler
from domain import claim, holder, instance, machine, session
from domain.aggregate import Event

HANDLERS: Mapping[type, Handler] = {
    **sessions.HANDLERS,
    **tasks.HANDLERS,
    **machines.HANDLERS,
    **instances.HANDLERS,
    **idempotency.HANDLERS,
}

EVENTS: tuple[type[Event], ...] = (
    *session.EVENTS,
    *instance.EVENTS,
    *holder.EVENTS,
    *machine.EVENTS,
    *claim.EVENTS,
)
