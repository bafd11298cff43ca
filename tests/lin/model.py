"""What a claim is, told in sequence: a register with one owner and a fence that rises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.lin.history import NEVER, Operation, Vitals

# Refusals to a holder that has ended; the last when it is to end once more.
ENDED = frozenset({"session_ended", "superseded", "instance_closed", "invalid_transition"})


class Register(NamedTuple):
    """An item's claim between two operations."""

    owner: str | None = None
    # That of the last grant, also once it is released; 0 before the first.
    fence: int = 0
    # False after a grant whose answer was lost: its fence is this or a higher one.
    is_exact: bool = True
    # The grant came no earlier and no later than this.
    granted: tuple[float, float] = (-NEVER, -NEVER)
    # Holders that have ended; nothing is granted to them any more.
    ended: frozenset[str] = frozenset()

    def seen(self, fence: int | None) -> Register | None:
        """The register, if this may be its fence; and then it is. None says nothing."""
        if fence is None or (self.is_exact and fence == self.fence):
            return self
        if self.is_exact or fence < self.fence:
            return None
        return self._replace(fence=fence, is_exact=True)

    def free(self) -> Register:
        """Nobody's. The fence stays, so that the next one is higher."""
        return self._replace(owner=None, granted=Register().granted)


class Claims:
    """Decides whether an operation may have had its outcome on a register.

    Whether a holder was stale is a matter of time, and the recorder knows only between which times
    things happened. It gives the service the benefit of the doubt: a takeover is wrong if the
    silence was too short however one looks at it, a refusal if it was long enough however one
    looks at it. ``slack`` is by how many seconds clocks may disagree. ``was_absent``: no process of
    the service was there for a moment, so no silence was long enough for certain.
    """

    def __init__(
        self,
        vitals: Vitals,
        stale_seconds: float,
        slack: float = 0.0,
        *,
        was_absent: bool = False,
    ) -> None:
        self._was_absent = was_absent
        self._vitals = vitals
        self._stale_seconds = stale_seconds
        self._slack = slack

    def step(self, register: Register, operation: Operation, now: float) -> Register | None:
        """The register afterwards, or None if that cannot have happened here.

        ``now`` is a time at which the operation surely had happened.
        """
        if operation.outcome == "unknown":
            return self._unanswered(register, operation, now)
        if operation.outcome == "refused":
            refusal = _REFUSALS.get(operation.code or "")
            return refusal(self, register, operation) if refusal else None
        return _CARRIED_OUT[operation.verb](self, register, operation, now)

    # Carried out

    def _claim(self, register: Register, operation: Operation, now: float) -> Register | None:
        if not operation.anew:
            return register.seen(operation.seen_fence) if _is_owner(register, operation) else None
        fence = operation.seen_fence
        if fence is None or fence <= register.fence:
            return None
        return self._granted(register, operation, now, fence, is_exact=True)

    def _granted(
        self, register: Register, operation: Operation, now: float, fence: int, *, is_exact: bool
    ) -> Register | None:
        holder = operation.holder
        if holder is None or holder in register.ended or holder == register.owner:
            return None
        if register.owner is not None and not self._may_lose(register, operation, now):
            return None
        # Unanswered claims of one holder are not told apart, so that they need not all be tried.
        granted = (operation.invoked, operation.answered) if is_exact else (-NEVER, NEVER)
        return Register(holder, fence, is_exact, granted, register.ended)

    def _may_lose(self, register: Register, operation: Operation, now: float) -> bool:
        """Whether the owner may have been silent for long enough."""
        if operation.verb != "take over" or register.owner is None:
            return False
        heard = self._vitals.last_surely(register.owner, operation.invoked)
        silent = min(now, operation.answered) - max(heard, register.granted[0])
        return silent + self._slack > self._stale_seconds

    def _release(self, register: Register, operation: Operation, now: float) -> Register | None:
        if not _is_owner(register, operation):
            return None
        register_then = register.seen(operation.fence)
        if register_then is None:
            return None
        register_then = register_then.seen(operation.seen_fence)
        return register_then and register_then.free()

    def _end(self, register: Register, operation: Operation, now: float) -> Register | None:
        assert operation.holder is not None
        ended = register._replace(ended=register.ended | {operation.holder})
        return ended.free() if _is_owner(register, operation) else ended

    def _under_fence(self, register: Register, operation: Operation, now: float) -> Register | None:
        if register.owner is None or operation.seen_holder not in (None, register.owner):
            return None
        return register.seen(operation.fence)

    def _read(self, register: Register, operation: Operation, now: float) -> Register | None:
        if operation.seen_holder != register.owner:
            return None
        return register.seen(operation.seen_fence)

    # Refused

    def _held(self, register: Register, operation: Operation) -> Register | None:
        owner = register.owner
        if owner is None or owner == operation.holder or owner != operation.seen_holder:
            return None
        if operation.verb == "take over" and self._must_lose(register, operation):
            return None
        return register.seen(operation.seen_fence)

    def _must_lose(self, register: Register, operation: Operation) -> bool:
        """Whether the owner was silent for too long to be kept."""
        assert register.owner is not None
        if self._was_absent:
            return False
        heard = self._vitals.last_possibly(register.owner, operation.answered)
        silent = operation.invoked - max(heard, register.granted[1])
        return silent - self._slack > self._stale_seconds

    def _not_holder(self, register: Register, operation: Operation) -> Register | None:
        if _is_owner(register, operation):
            return None
        return self._read(register, operation, operation.answered)

    def _stale_fence(self, register: Register, operation: Operation) -> Register | None:
        told = self._read(register, operation, operation.answered)
        if told is None or (told.owner and told.is_exact and told.fence == operation.fence):
            return None
        return told

    def _never_claimed(self, register: Register, operation: Operation) -> Register | None:
        return register if register.fence == 0 else None

    def _has_ended(self, register: Register, operation: Operation) -> Register | None:
        return register if operation.holder in register.ended else None

    # Without an answer

    def _unanswered(self, register: Register, operation: Operation, now: float) -> Register | None:
        """What it did if it did something."""
        match operation.verb:
            case "claim" | "take over":
                fence = register.fence + 1
                return self._granted(register, operation, now, fence, is_exact=False)
            case "release" | "end":
                return _CARRIED_OUT[operation.verb](self, register, operation, now)
        return None


def can_wait(unanswered: Operation, register: Register, goal: Operation) -> bool:
    """Whether an end that nobody confirmed makes no difference before ``goal``, but for itself.

    It commutes with all but the holder's own operations. Without this every such end doubles the
    states for good.
    """
    if unanswered.verb != "end" or _is_owner(register, unanswered):
        return False
    return goal.holder != unanswered.holder or goal.code not in ENDED


def is_over(unanswered: Operation, register: Register) -> bool:
    """Whether it is too late for it, here and ever after."""
    if unanswered.verb == "release":
        return unanswered.fence is not None and unanswered.fence < register.fence
    return unanswered.holder in register.ended


def _is_owner(register: Register, operation: Operation) -> bool:
    return register.owner is not None and register.owner == operation.holder


_CARRIED_OUT: Mapping[str, Callable[[Claims, Register, Operation, float], Register | None]] = {
    "claim": Claims._claim,
    "take over": Claims._claim,
    "release": Claims._release,
    "end": Claims._end,
    "verify": Claims._under_fence,
    "write": Claims._under_fence,
    "read": Claims._read,
}

_REFUSALS: Mapping[str, Callable[[Claims, Register, Operation], Register | None]] = {
    "claim_held": Claims._held,
    "not_holder": Claims._not_holder,
    "stale_fence": Claims._stale_fence,
    "claim_not_found": Claims._never_claimed,
    **dict.fromkeys(ENDED, Claims._has_ended),
}
