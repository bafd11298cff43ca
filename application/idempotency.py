"""Storing and recalling the reply of an action, which consists of many commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from application.engine.fields import Command
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from domain.aggregate import Json
from domain.errors import NotFound


class NothingKept(NotFound):
    """There is no stored reply for this idempotency key."""

    code: ClassVar[str] = "nothing_kept"


class RecallReply(Command):
    """Ask for the stored reply; the engine answers it from the receipt if there is one."""


class KeepReply(Command):
    """Store a reply under the idempotency key that this command carries."""

    value: Json


def recall(work: UnitOfWork, command: RecallReply) -> Reply:
    """Raise :class:`NothingKept`; called only if there is no receipt."""
    raise NothingKept


def keep(work: UnitOfWork, command: KeepReply) -> Reply:
    """The value, unchanged."""
    return Reply(command.value)


HANDLERS: Mapping[type, Handler] = {RecallReply: recall, KeepReply: keep}
