"""Where a session works: its place on a machine and, if it names one, a docker slot (spec 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from application.engine.unit_of_work import UnitOfWork
from application.holdings import grant, prepare_holdings, release_all
from application.session_view import view
from application.workers import leave, prepare_workers
from domain.claims import claim
from domain.claims.claim import Claim
from domain.errors import SessionExists, SlotTaken
from domain.machines.machine import Machine
from domain.sessions.session import Session

# How many docker slots are tried in search of a free one, in blocks that grow.
MOST_SLOTS = 256
FIRST_BLOCK = 8


@dataclass(slots=True)
class Place:
    """A place with what decides about it: the machine, the claims, and their holders."""

    work: UnitOfWork
    machine: Machine
    place: Claim
    slot: Claim | None
    docker_slot: int | None
    holders: dict[str, Session]

    @classmethod
    def load(
        cls, work: UnitOfWork, project_id: str, machine_id: str, docker_slot: int | None
    ) -> Place:
        """Load the place, its current holders, and all that these hold."""
        place_name = claim.place(project_id, machine_id, docker_slot)
        names = [place_name]
        if docker_slot is not None:
            names.append(claim.slot(machine_id, docker_slot))
        work.prepare((Machine, machine_id), *((Claim, name) for name in names))
        claims = [work.load(Claim, name) for name in names]
        holder_ids = dict.fromkeys(c.holder_id for c in claims if c.holder_id)
        work.prepare(*((Session, holder_id) for holder_id in holder_ids))
        holders = {holder_id: work.load(Session, holder_id) for holder_id in holder_ids}
        prepare_holdings(work, *holders.values())
        prepare_workers(work, *holders.values())
        return cls(
            work=work,
            machine=work.load(Machine, machine_id),
            place=claims[0],
            slot=claims[1] if docker_slot is not None else None,
            docker_slot=docker_slot,
            holders=holders,
        )

    @classmethod
    def any_free(
        cls,
        work: UnitOfWork,
        project_id: str,
        machine_id: str,
        *,
        first: int | None = None,
        leaving: Session | None = None,
    ) -> Place:
        """The place without a slot if it is free, else the next free docker slot.

        A machine's declared slots are tried, or else a fixed range; ``first`` first, and slots of
        stalled sessions last. If none is free, this is the place without a slot.
        """
        preferred = [None] if first is None else [first, None]
        places = [cls.load(work, project_id, machine_id, slot) for slot in preferred]
        for place in places:
            if place._is_free(leaving):
                return place
        machine = places[0].machine
        slots = machine.docker_slots
        stalled: list[int] = []
        for some in _growing(range(1, MOST_SLOTS + 1) if slots is None else sorted(slots)):
            claims = {
                slot: (claim.place(project_id, machine_id, slot), claim.slot(machine_id, slot))
                for slot in some
            }
            work.prepare(*((Claim, name) for names in claims.values() for name in names))
            holders = {
                slot: {h for name in names if (h := work.load(Claim, name).holder_id)}
                for slot, names in claims.items()
            }
            for slot, held_by in holders.items():
                if not held_by:
                    return cls.load(work, project_id, machine_id, slot)
            work.prepare(*((Session, h) for held_by in holders.values() for h in held_by))
            stalled += [
                slot
                for slot, held_by in holders.items()
                if all(places[0]._is_passable(work.load(Session, h), leaving) for h in held_by)
            ]
        return cls.load(work, project_id, machine_id, stalled[0]) if stalled else places[-1]

    def require_free(self, *, replace: bool = False, leaving: Session | None = None) -> None:
        """Raise unless a session may take this place now.

        A stalled holder can be replaced; the session ``leaving`` is about to go. Raises
        ``UnknownSlot``, :class:`SessionExists` or :class:`SlotTaken`.
        """
        work, default_ms = self.work, self.work.policy.stall_threshold_ms
        self.machine.require_slot(self.docker_slot)
        holder = self._occupant(self.place, leaving)
        if holder is not None and not replace:
            raise SessionExists(
                f"Session {holder.key} is {holder.status} in this place.",
                details={
                    "session": view(holder, work.now, default_ms, work.serving),
                    "session_id": holder.key,
                    "heartbeat_age_seconds": holder.gap_seconds(self.work.now),
                },
            )
        other = self._occupant(self.slot, leaving) if self.slot else None
        if other is not None and other is not holder:
            raise SlotTaken(
                f"Docker slot {self.docker_slot} of machine {self.machine.key} holds session "
                f"{other.key}.",
                details={
                    "session_id": other.key,
                    "project_id": other.project_id,
                    "machine_id": self.machine.key,
                    "docker_slot": self.docker_slot,
                    "heartbeat_age_seconds": other.gap_seconds(self.work.now),
                },
            )

    def occupy(self, session: Session, *, leaving: Session | None = None) -> None:
        """Give the session this place, displacing its holder. An unknown machine is registered."""
        now, default_ms = self.work.now, self.work.policy.stall_threshold_ms
        if not self.machine.is_known:
            self.machine.register(now, self.machine.key, None, {})
        for holder in self.holders.values():
            if holder is leaving:
                continue
            is_own = session.instance_id is not None and holder.instance_id == session.instance_id
            if self._is_stalled(holder):
                holder.note_overdue(now, default_ms, self.work.serving)
                leave(self.work, holder, "superseded", by=session.key, is_own=is_own)
            else:
                leave(self.work, holder, "replaced", by=session.key, is_own=is_own)
                holder.fail(now, f"Replaced by session {session.key}.")
        for resource in self._claims():
            grant(self.work, resource, session, self.holders.get(resource.holder_id or ""))
        for holder in self.holders.values():
            release_all(self.work, holder)

    def _is_free(self, leaving: Session | None) -> bool:
        slots = self.machine.docker_slots
        is_there = self.docker_slot is None or slots is None or self.docker_slot in slots
        return is_there and not any(self._occupant(each, leaving) for each in self._claims())

    def _occupant(self, resource: Claim, leaving: Session | None) -> Session | None:
        holder = self.holders.get(resource.holder_id or "")
        return None if holder is None or self._is_passable(holder, leaving) else holder

    def _is_passable(self, holder: Session, leaving: Session | None) -> bool:
        return holder is leaving or self._is_stalled(holder)

    def _is_stalled(self, holder: Session) -> bool:
        default_ms = self.work.policy.stall_threshold_ms
        return holder.status_at(self.work.now, default_ms, self.work.serving) == "stalled"

    def _claims(self) -> Sequence[Claim]:
        return [self.place, *([self.slot] if self.slot else [])]


def _growing(slots: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split into blocks of growing size: a free slot is usually found in the first."""
    size, done = FIRST_BLOCK, 0
    while done < min(len(slots), MOST_SLOTS):
        yield slots[done : min(done + size, MOST_SLOTS)]
        done, size = done + size, size * 2
