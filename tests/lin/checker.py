"""Whether a concurrent history could have come from operations that happened one at a time.

A history is linearizable if each operation can be given a moment between its call and its answer
so that, in the order of these moments, every answer is right (Herlihy and Wing, "Linearizability: a
correctness condition for concurrent objects", TOPLAS 1990). Trying the orders is due to Wing and
Gong ("Testing and verifying concurrent objects", JPDC 1993), remembering what was tried to Lowe
("Testing for linearizability", CCPE 2017), and so is the algorithm here: *just-in-time*
linearization. It goes through calls and answers in the order of time and keeps all states in which
the register may be; an operation is put in order no sooner than an answer demands it. Items are
checked apart, which is sound and complete (Horn and Kroening, "Faster linearizability checking via
P-compositionality", FORTE 2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.lin.history import NEVER, Operation
from tests.lin.model import Claims, Register, can_wait, is_over

# For how many seconds a call whose answer was lost is thought to be under way, at first. An order
# that is found so is an order; only if there is none it is looked for among all that may have
# happened later, which can be too many to try.
WINDOWS = (4.0, 12.0, NEVER)
# More states than this at once, and the checker gives up: that is no verdict, and no success.
MOST_STATES = 200_000


class Undecided(Exception):
    """Too many orders are possible to try them all."""


@dataclass(frozen=True, slots=True)
class Violation:
    """The first answer that no order explains, and all that the register may have been before."""

    operation: Operation
    registers: Sequence[Register]
    pending: Sequence[Operation]

    def __str__(self) -> str:
        lines = [f"{self.operation.item}: no order explains {self.operation}"]
        lines += [
            f"  held by {r.owner or 'nobody'}, fence {'' if r.is_exact else 'at least '}{r.fence}"
            for r in self.registers
        ]
        return "\n".join([*lines, *(f"  under way: {operation}" for operation in self.pending)])


@dataclass(frozen=True, slots=True)
class _Path:
    """A state reached, and which of the operations under way have happened on the way there."""

    register: Register
    done: frozenset[int]


def check(operations: Iterable[Operation], claims: Claims) -> Violation | None:
    """Nothing if the operations, of one item, are linearizable; else where they stop being so.

    Raises :class:`Undecided`.
    """
    of_item = list(operations)
    for window in WINDOWS[:-1]:
        with suppress(Undecided):
            if _Search(of_item, claims, window).run() is None:
                return None
    return _Search(of_item, claims, WINDOWS[-1]).run()


class _Search:
    """The way through one history."""

    def __init__(self, operations: Sequence[Operation], claims: Claims, window: float) -> None:
        self._operations = operations
        self._claims = claims
        self._window = window
        self._under_way: dict[int, Operation] = {}
        # Of these, those that have an answer.
        self._awaited: dict[int, Operation] = {}
        self._earlier_twin = _earlier_twins(operations)
        self._paths = {_Path(Register(), frozenset())}

    def run(self) -> Violation | None:
        for number, is_answer in self._events():
            if not is_answer:
                self._begin(number)
                continue
            before = self._paths
            self._paths = self._past(number)
            operation = self._under_way.pop(number)
            del self._awaited[number]
            if not self._paths:
                registers = {path.register: None for path in before}
                return Violation(operation, list(registers), list(self._under_way.values()))
            self._forget_the_dominated()
        return None

    def _events(self) -> list[tuple[int, bool]]:
        """Calls and answers as they came. At one and the same time, calls first."""
        events = [(o.invoked, False, number) for number, o in enumerate(self._operations)]
        events += [
            (o.answered, True, number)
            for number, o in enumerate(self._operations)
            if o.answered != NEVER
        ]
        return [(number, is_answer) for _, is_answer, number in sorted(events)]

    def _begin(self, number: int) -> None:
        operation = self._operations[number]
        self._under_way[number] = operation
        if operation.answered != NEVER:
            self._awaited[number] = operation
            return
        now = operation.invoked
        registers = {path.register for path in self._paths}
        over = [
            number
            for number, operation in self._under_way.items()
            if operation.answered == NEVER
            and (
                operation.invoked + self._window < now
                or all(is_over(operation, r) for r in registers)
            )
        ]
        for number in over:
            del self._under_way[number]
        self._paths = {_Path(p.register, p.done.difference(over)) for p in self._paths}

    def _past(self, number: int) -> set[_Path]:
        """All paths on which this operation has happened by the time of its answer."""
        now = self._operations[number].answered
        found: set[_Path] = set()
        tried: set[_Path] = set()
        ahead = [self._observed(path, now) for path in self._paths]
        while ahead:
            path = ahead.pop()
            if path in tried:
                continue
            tried.add(path)
            if len(tried) > MOST_STATES:
                raise Undecided(f"over {MOST_STATES} states at {self._operations[number]}")
            if number in path.done:
                found.add(_Path(path.register, path.done - {number}))
            else:
                ahead += self._onwards(path, number)
        return found

    def _onwards(self, path: _Path, answered: int) -> Iterable[_Path]:
        """One operation further, each that may be next on the way to the one that was answered."""
        goal = self._operations[answered]
        for number, operation in self._under_way.items():
            if number in path.done:
                continue
            twin = self._earlier_twin.get(number)
            if twin in self._under_way and twin not in path.done:
                continue
            if operation.answered == NEVER and can_wait(operation, path.register, goal):
                continue
            now = goal.answered
            register = self._claims.step(path.register, operation, now)
            if register is not None and register != path.register:
                yield self._observed(_Path(register, path.done | {number}), now)

    def _observed(self, path: _Path, now: float) -> _Path:
        """The path with all operations that may happen here and change nothing: why wait?"""
        seen = [
            number
            for number, operation in self._awaited.items()
            if number not in path.done
            and self._claims.step(path.register, operation, now) == path.register
        ]
        return _Path(path.register, path.done.union(seen)) if seen else path

    def _forget_the_dominated(self) -> None:
        """Of two paths to one state, that which used fewer unanswered operations can do more."""
        if len(self._paths) == 1:
            return
        alike: dict[tuple[Register, frozenset[int]], list[frozenset[int]]] = {}
        for path in self._paths:
            used = frozenset(n for n in path.done if self._operations[n].answered == NEVER)
            alike.setdefault((path.register, path.done - used), []).append(used)
        self._paths = {
            _Path(register, answered | used)
            for (register, answered), ways in alike.items()
            for used in ways
            if not any(other < used for other in ways)
        }


def _earlier_twins(operations: Sequence[Operation]) -> dict[int, int]:
    """For each unanswered operation the one before that is the same: they happen in that order.

    Which of the two did happen can make no difference, so only the earlier one is tried.
    """
    twins: dict[int, int] = {}
    last: dict[tuple[object, ...], int] = {}
    for number in sorted(range(len(operations)), key=lambda n: operations[n].invoked):
        operation = operations[number]
        if operation.answered == NEVER:
            same = (operation.verb, operation.holder, operation.fence)
            if same in last:
                twins[number] = last[same]
            last[same] = number
    return twins
