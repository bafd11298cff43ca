"""Keeping and recalling the reply of an action that is made of many commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from application.engine.fields import Command
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from domain.aggregate import Json
from domain.errors import NotFound


class NothingKept(NotFound):
    """No reply was kept under this idempotency key."""

    code: ClassVar[str] = "nothing_kept"


class RecallReply(Command):
    """Answered from the receipt of its idempotency key, if there is one."""


class KeepReply(Command):
    """Keep a reply under the idempotency key that this command carries."""

    value: Json


def recall(work: UnitOfWork, command: RecallReply) -> Reply:
    """Reached only when there is no receipt. Raises :class:`NothingKept`."""
    raise NothingKept


def keep(work: UnitOfWork, command: KeepReply) -> Reply:
    """The value, as it is."""
    return Reply(command.value)


HANDLERS: Mapping[type, Handler] = {RecallReply: recall, KeepReply: keep}
