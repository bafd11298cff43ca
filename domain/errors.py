"""Every error that the service can give, with its code.

The tree::

    HoldfastError
    ├── InvalidInput            the request is wrong
    │   ├── UnknownSession · UnknownSlot · NotRecoverable · UnknownParent · UnknownEventType
    │   ├── UnknownInstance · DependencyCycle
    ├── NotFound                the thing does not exist, or was deleted
    │   ├── SessionNotFound · TaskNotFound · MachineNotFound · InstanceNotFound · StreamNotFound
    │   ├── ClaimNotFound · WorkItemNotFound
    ├── Conflict                a valid request that the current state does not allow
    │   ├── SessionExists · SlotTaken · SessionEnded · Superseded · InvalidTransition
    │   ├── MachineUnavailable · AlreadyRecovered · NotArchivable · WriteConflict
    │   ├── Supervised · SupervisorReplaced
    │   ├── InstanceEnded · InstanceAlive · HasLiveChildren · GlobalExists
    │   ├── ClaimHeld · NotHolder · StaleFence · ItemCompleted · ItemCancelled
    │   ├── BlockedByDependencies · MachineInUse · TooManyClaims · TooManyChildren
    ├── IdempotencyMismatch     two different requests with one idempotency key
    └── Unavailable             the service cannot answer now; try again
        └── TimedOut

An error has a code but no HTTP status: each interface maps errors to its own protocol
(:mod:`interfaces.errors`). The docstring of a class is its default message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, TypedDict

MAX_FIELD_ERRORS = 100


# The longest part of an id that an error message shows, in characters.
MAX_SHOWN = 200


class FieldError(TypedDict):
    """A refused field: its dotted path, and why it was refused."""

    field: str
    message: str


class HoldfastError(Exception):
    """The request could not be carried out."""

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, object] | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details = dict(details or {})
        self.errors = list(errors)
        super().__init__(self.message)


class InvalidInput(HoldfastError):
    """The request is not valid."""

    code = "validation_error"

    @classmethod
    def of(cls, field: str, message: str, *, details: Mapping[str, object] | None = None) -> Self:
        """The error for a single field, which is named in the message and in ``errors``."""
        return cls.of_fields([{"field": field, "message": message}], details=details)

    @classmethod
    def of_fields(
        cls,
        fields: Sequence[FieldError],
        *,
        details: Mapping[str, object] | None = None,
        more: int = 0,
    ) -> Self:
        """The error for these fields; it lists the first hundred (spec 9).

        ``more`` is the number of wrong fields that ``fields`` leaves out.
        """
        named: list[FieldError] = [
            {"field": _short(f["field"], 200), "message": _short(f["message"], 500)}
            for f in fields[:MAX_FIELD_ERRORS]
        ]
        message = "; ".join(f"{f['field']}: {f['message']}" for f in named)
        if more := more + len(fields) - len(named):
            message += f"; and {more} more"
        return cls(message, details=details, errors=named)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shown_id(an_id: str) -> str:
    """An id made safe for an error message: no control characters, at most ``MAX_SHOWN`` long."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in an_id[: MAX_SHOWN + 1])
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 1]}…"


class UnknownSession(InvalidInput):
    """No such session."""

    code = "unknown_session"


class UnknownInstance(InvalidInput):
    """No such instance."""

    code = "unknown_instance"


class UnknownSlot(InvalidInput):
    """The machine has no such docker slot."""

    code = "unknown_slot"


class NotRecoverable(InvalidInput):
    """Only a failed or stalled session can be recovered."""

    code = "not_recoverable"


class UnknownParent(InvalidInput):
    """The parent does not exist or is closed."""

    code = "unknown_parent"


class UnknownEventType(InvalidInput):
    """The event type is not in the catalogue."""

    code = "unknown_event_type"


class DependencyCycle(InvalidInput):
    """Work items cannot depend on each other in a cycle."""

    code = "dependency_cycle"


class NotFound(HoldfastError):
    """Not found."""

    code = "not_found"
    kind: ClassVar[str] = "thing"

    @classmethod
    def named(cls, an_id: str) -> Self:
        """The error for a missing thing; ``details`` has its ``kind`` and ``id``."""
        kind, shown = cls.kind, shown_id(an_id)
        return cls(
            cls.sentence().format(shown),
            details={"kind": kind.replace(" ", "_"), "id": shown},
        )

    @classmethod
    def sentence(cls) -> str:
        """The message, with ``{}`` for the id."""
        return f"There is no {cls.kind} {{}}."


class SessionNotFound(NotFound):
    """No such session."""

    code = "session_not_found"
    kind = "session"


class TaskNotFound(NotFound):
    """No such task."""

    code = "task_not_found"
    kind = "task"


class MachineNotFound(NotFound):
    """No such machine."""

    code = "machine_not_found"
    kind = "machine"


class InstanceNotFound(NotFound):
    """No such instance."""

    code = "instance_not_found"
    kind = "instance"


class StreamNotFound(NotFound):
    """No such stream."""

    code = "stream_not_found"
    kind = "stream"


class ClaimNotFound(NotFound):
    """The work item was never claimed."""

    code = "claim_not_found"
    kind = "claim"

    @classmethod
    def sentence(cls) -> str:
        """The message, with ``{}`` for the item's id."""
        return "Nobody ever claimed {}."


class WorkItemNotFound(NotFound):
    """No such work item."""

    code = "work_item_not_found"
    kind = "work item"


class Conflict(HoldfastError):
    """The request conflicts with the current state."""

    code = "conflict"


class WriteConflict(Conflict):
    """Other writers kept changing the same thing first. Try again."""


class SessionExists(Conflict):
    """A session is already active in this place."""

    code = "session_exists"


class SlotTaken(Conflict):
    """The docker slot is taken by another session."""

    code = "slot_taken"


class SessionEnded(Conflict):
    """The session has ended."""

    code = "session_ended"


class Superseded(Conflict):
    """Another session took this session's place while it was stalled."""

    code = "superseded"


class Supervised(Conflict):
    """Another supervisor is active; it was heard from a moment ago."""

    code = "supervised"


class SupervisorReplaced(Conflict):
    """Another supervisor has taken over: this fence is no longer valid."""

    code = "supervisor_replaced"


class InvalidTransition(Conflict):
    """The status cannot change that way."""

    code = "invalid_transition"


class MachineUnavailable(Conflict):
    """The machine is offline or in maintenance."""

    code = "machine_unavailable"


class MachineInUse(Conflict):
    """Sessions run on the machine; end them first, or recover them elsewhere."""

    code = "machine_in_use"


class AlreadyRecovered(Conflict):
    """The session was already recovered onto another machine."""

    code = "already_recovered"


class InstanceEnded(Conflict):
    """The instance has been closed."""

    code = "instance_closed"


class InstanceAlive(Conflict):
    """The instance is active; only a stale or closed one can be resumed."""

    code = "instance_alive"


class HasLiveChildren(Conflict):
    """The instance has open children; set cascade to close them too."""

    code = "has_live_children"


class GlobalExists(Conflict):
    """There is already a live global instance."""

    code = "global_exists"


class ClaimHeld(Conflict):
    """Another session or instance holds the work item."""

    code = "claim_held"


class NotHolder(Conflict):
    """Only the holder of a claim may do that."""

    code = "not_holder"


class StaleFence(Conflict):
    """The claim is no longer held under this fence: another may be working on the item."""

    code = "stale_fence"


class ItemCompleted(Conflict):
    """The work item is completed already."""

    code = "item_completed"


class ItemCancelled(Conflict):
    """The work item was cancelled."""

    code = "item_cancelled"


class TooManyClaims(Conflict):
    """The holder has the maximum number of claims; release some first."""

    code = "too_many_claims"


class TooManyChildren(Conflict):
    """The parent has the maximum number of children; close some first."""

    code = "too_many_children"


class BlockedByDependencies(Conflict):
    """Other work items must be completed first."""

    code = "blocked_by_dependencies"


class NotArchivable(Conflict):
    """Only a completed or failed session can be archived."""

    code = "not_archivable"


class IdempotencyMismatch(HoldfastError):
    """This Idempotency-Key was used for a different request."""

    code = "idempotency_mismatch"


class Unavailable(HoldfastError):
    """The database cannot be reached; nothing that was acknowledged is lost. Try again."""

    code = "database_unavailable"


class TimedOut(Unavailable):
    """The request took too long."""

    code = "timeout"
