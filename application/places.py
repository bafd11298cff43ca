"""Where a session works: its place on a machine and, if it names one, a docker slot (spec 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from application.holdings import grant, prepare_holdings, release_all
from application.session_view import view
from application.work import Work
from domain import claim
from domain.claim import Claim
from domain.errors import SessionExists, SlotTaken
from domain.machine import Machine
from domain.session import Session


@dataclass(slots=True)
class Place:
    """A place with all that decides about it: the machine, the claims, and who holds them."""

    work: Work
    machine: Machine
    place: Claim
    slot: Claim | None
    docker_slot: int | None
    holders: dict[str, Session]

    @classmethod
    def load(cls, work: Work, project_id: str, machine_id: str, docker_slot: int | None) -> Place:
        """Bring into memory the place, its present holders, and all that these hold."""
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
        return cls(
            work=work,
            machine=work.load(Machine, machine_id),
            place=claims[0],
            slot=claims[1] if docker_slot is not None else None,
            docker_slot=docker_slot,
            holders=holders,
        )

    def require_free(self, *, replace: bool = False, leaving: Session | None = None) -> None:
        """Raise unless a session may work here now.

        A stalled holder does not stand in the way; ``leaving`` is about to go anyway. Raises
        ``UnknownSlot``, :class:`SessionExists` or :class:`SlotTaken`.
        """
        self.machine.require_slot(self.docker_slot)
        holder = self._occupant(self.place, leaving)
        if holder is not None and not replace:
            raise SessionExists(
                f"Session {holder.key} is {holder.status} in this place.",
                details={
                    "session": view(holder, self.work.now, self.work.policy.stall_threshold_ms),
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
        """Put the session here; whoever was here goes. The machine becomes known if it was not."""
        now = self.work.now
        if not self.machine.is_known:
            self.machine.register(now, self.machine.key, None, {})
        for holder in self.holders.values():
            if holder is leaving:
                continue
            if self._is_stalled(holder):
                holder.note_overdue(now, self.work.policy.stall_threshold_ms)
            else:
                holder.fail(now, f"Replaced by session {session.key}.")
        for resource in self._claims():
            grant(self.work, resource, session, self.holders.get(resource.holder_id or ""))
        for holder in self.holders.values():
            release_all(self.work, holder)

    def _occupant(self, resource: Claim, leaving: Session | None) -> Session | None:
        holder = self.holders.get(resource.holder_id or "")
        return None if holder is None or holder is leaving or self._is_stalled(holder) else holder

    def _is_stalled(self, holder: Session) -> bool:
        status = holder.status_at(self.work.now, self.work.policy.stall_threshold_ms)
        return status == "stalled"

    def _claims(self) -> Sequence[Claim]:
        return [self.place, *([self.slot] if self.slot else [])]
