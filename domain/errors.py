"""What can go wrong, named once.

The tree::

    HoldfastError
    ├── InvalidInput            the request itself is wrong
    │   ├── UnknownSession · UnknownSlot · NotRecoverable · UnknownParent · UnknownEventType
    │   ├── UnknownInstance · DependencyCycle
    ├── NotFound                there is no such thing (any more)
    │   ├── SessionNotFound · TaskNotFound · MachineNotFound · InstanceNotFound · StreamNotFound
    │   ├── ClaimNotFound · WorkItemNotFound
    ├── Conflict                right in itself, refused by the present state
    │   ├── SessionExists · SlotTaken · SessionEnded · Superseded · InvalidTransition
    │   ├── MachineUnavailable · AlreadyRecovered · NotArchivable · WriteConflict
    │   ├── Supervised · SupervisorReplaced
    │   ├── InstanceEnded · InstanceAlive · HasLiveChildren · GlobalExists
    │   ├── ClaimHeld · NotHolder · StaleFence · ItemCompleted · ItemCancelled
    │   ├── BlockedByDependencies · MachineInUse · TooManyClaims · TooManyChildren
    ├── IdempotencyMismatch     one idempotency key, two different requests
    └── Unavailable             nothing is wrong with the request; try again
        └── TimedOut

Errors know codes, not protocols: a face maps the code to its own status. The docstring of a class
is its default message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, TypedDict

MAX_FIELD_ERRORS = 100


# Of an id that is repeated in an error.
MAX_SHOWN = 200


class FieldError(TypedDict):
    """One field that was refused: its dotted path and why."""

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
        """The error for a single field, named in the message as well as in ``errors``."""
        return cls.of_fields([{"field": field, "message": message}], details=details)

    @classmethod
    def of_fields(
        cls,
        fields: Sequence[FieldError],
        *,
        details: Mapping[str, object] | None = None,
        more: int = 0,
    ) -> Self:
        """The error for these fields, its message naming each: the first hundred (spec 9).

        ``more`` is how many there are besides.
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
    """An id as an error may repeat it: on one line, harmless to terminals, not too long."""
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
    """There is no such instance to be the parent."""

    code = "unknown_parent"


class UnknownEventType(InvalidInput):
    """The event type is not in the catalogue."""

    code = "unknown_event_type"


class DependencyCycle(InvalidInput):
    """Work items cannot wait for each other in a circle."""

    code = "dependency_cycle"


class NotFound(HoldfastError):
    """Not found."""

    code = "not_found"
    kind: ClassVar[str] = "thing"

    @classmethod
    def named(cls, an_id: str) -> Self:
        """The error that names what there is none of; ``details`` has its kind and id."""
        kind, shown = cls.kind, shown_id(an_id)
        return cls(
            cls.sentence().format(shown),
            details={"kind": kind.replace(" ", "_"), "id": shown},
        )

    @classmethod
    def sentence(cls) -> str:
        """What is said of an id."""
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
    """Nobody ever claimed that."""

    code = "claim_not_found"
    kind = "claim"

    @classmethod
    def sentence(cls) -> str:
        """What is said of an item."""
        return "Nobody ever claimed {}."


class WorkItemNotFound(NotFound):
    """No such work item."""

    code = "work_item_not_found"
    kind = "work item"


class Conflict(HoldfastError):
    """The request conflicts with the present state."""

    code = "conflict"


class WriteConflict(Conflict):
    """Others kept writing to the same thing first; try again."""


class SessionExists(Conflict):
    """A session is already active in this place."""

    code = "session_exists"


class SlotTaken(Conflict):
    """The docker slot holds another session."""

    code = "slot_taken"


class SessionEnded(Conflict):
    """The session has ended."""

    code = "session_ended"


class Superseded(Conflict):
    """Another session took this session's place while it was stalled."""

    code = "superseded"


class Supervised(Conflict):
    """Another supervisor is at work on it; it was heard of a moment ago."""

    code = "supervised"


class SupervisorReplaced(Conflict):
    """Another supervisor has taken it up: the fence is not the present one's."""

    code = "supervisor_replaced"


class InvalidTransition(Conflict):
    """The status cannot change that way."""

    code = "invalid_transition"


class MachineUnavailable(Conflict):
    """The machine is offline or in maintenance."""

    code = "machine_unavailable"


class MachineInUse(Conflict):
    """Sessions live on the machine; end them first, or recover them elsewhere."""

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
    """The instance has active children; close them too with cascade."""

    code = "has_live_children"


class GlobalExists(Conflict):
    """There is a live global instance already."""

    code = "global_exists"


class ClaimHeld(Conflict):
    """Another holds the work item."""

    code = "claim_held"


class NotHolder(Conflict):
    """Only the holder of a claim may do that."""

    code = "not_holder"


class StaleFence(Conflict):
    """The claim is no longer held under this fence: another may be at work on the item."""

    code = "stale_fence"


class ItemCompleted(Conflict):
    """The work item is completed already."""

    code = "item_completed"


class ItemCancelled(Conflict):
    """The work item was cancelled."""

    code = "item_cancelled"


class TooManyClaims(Conflict):
    """The holder has as many claims as one may have; it must let go of some first."""

    code = "too_many_claims"


class TooManyChildren(Conflict):
    """The parent has as many children as one may have; some must be closed first."""

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
