"""Claims as they should be, one operation at a time: what the checker must accept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from tests.lin.history import NEVER, Operation, Sign, Verb

ITEM = "item"


class Call(NamedTuple):
    """A call that a test thought up. Times are seconds; ``at`` is when it is carried out."""

    verb: Verb | Literal["beat"]
    holder: str
    at: float
    before: float
    after: float
    # Which of the fences granted so far it sends along, counted from the newest.
    fence_back: int = 0
    is_lost: bool = False


@dataclass
class CorrectClaims:
    """One claim, with plain state and an exact clock."""

    stale_seconds: float
    owner: str | None = None
    claimed_at: float = 0.0
    version: int = 0
    fences: list[int] = field(default_factory=lambda: [0])
    heard: dict[str, float] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    operations: list[Operation] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)

    def run(self, calls: Iterable[Call]) -> None:
        """Carry out the calls in the order of their moments, and note what each was told."""
        for call in sorted(calls, key=lambda call: call.at):
            answered = NEVER if call.is_lost else call.at + call.after
            if call.verb == "beat":
                self.heard[call.holder] = call.at
                self.signs.append(
                    Sign(
                        holder=call.holder,
                        invoked=call.at - call.before,
                        answered=answered,
                        is_certain=not call.is_lost,
                    )
                )
                continue
            asked = Operation(
                item=ITEM,
                verb=call.verb,
                outcome="ok",
                invoked=call.at - call.before,
                answered=answered,
                holder=None if call.verb in ("verify", "read") else call.holder,
                fence=self._sent(call),
            )
            told = self._carry_out(asked, call.at)
            if call.is_lost:
                if call.verb in ("claim", "take over", "release", "end"):
                    self.operations.append(replace(asked, outcome="unknown"))
            else:
                self.operations.append(told)

    def _sent(self, call: Call) -> int | None:
        if call.verb not in ("release", "verify", "write"):
            return None
        return self.fences[max(0, len(self.fences) - 1 - call.fence_back)]

    @property
    def fence(self) -> int:
        """The newest."""
        return self.fences[-1]

    def _carry_out(self, asked: Operation, at: float) -> Operation:
        holder = asked.holder
        match asked.verb:
            case "claim" | "take over":
                assert holder is not None
                if holder in self.ended:
                    return replace(asked, outcome="refused", code="session_ended")
                if self.owner == holder:
                    return self._as_is(asked)
                if self.owner is not None and not (
                    asked.verb == "take over" and self._silence(at) > self.stale_seconds
                ):
                    return self._refused(asked, "claim_held")
                self.version += 1
                self.owner, self.claimed_at = holder, at
                self.fences.append(self.version)
                return replace(self._as_is(asked), anew=True)
            case "release":
                if self.fence == 0:
                    return replace(asked, outcome="refused", code="claim_not_found")
                if self.owner != holder:
                    return self._refused(asked, "not_holder")
                if asked.fence != self.fence:
                    return self._refused(asked, "stale_fence")
                self._free()
            case "end":
                assert holder is not None
                self.ended.add(holder)
                if self.owner == holder:
                    self._free()
                return asked
            case "verify" | "write":
                if self.owner is None or asked.fence != self.fence:
                    return self._refused(asked, "stale_fence")
        return self._as_is(asked)

    def _silence(self, at: float) -> float:
        assert self.owner is not None
        return at - max(self.claimed_at, self.heard.get(self.owner, -NEVER))

    def _free(self) -> None:
        self.version += 1
        self.owner = None

    def _as_is(self, asked: Operation) -> Operation:
        return replace(asked, seen_holder=self.owner, seen_fence=self.fence)

    def _refused(self, asked: Operation, code: str) -> Operation:
        return replace(self._as_is(asked), outcome="refused", code=code)
