"""A host with docker slots (S4 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, get_args

from domain.aggregate import Aggregate, Event, Json, merged, require_room
from domain.errors import MachineInUse, MachineNotFound, MachineUnavailable, UnknownSlot

MachineStatus = Literal["online", "offline", "maintenance"]
MACHINE_STATUSES: tuple[MachineStatus, ...] = get_args(MachineStatus)


class MachineEvent(Event):
    """A machine's event."""


class MachineRegistered(MachineEvent):
    """A machine made itself known, or a session named one that nobody had registered."""

    event_type = "machine_registered"
    hostname: str
    # None: nobody has declared the slots, so any is taken.
    docker_slots: list[int] | None = None
    metadata: Json | None = None

    def change(self, machine: Machine) -> None:
        machine.hostname = self.hostname
        machine.docker_slots = self.docker_slots
        machine.metadata = merged({}, self.metadata)
        machine.created_at = machine.updated_at = machine.last_heartbeat = self.timestamp
        machine.is_removed = False


class MachineHeartbeat(MachineEvent):
    """The machine is up; an offline one is online again."""

    event_type = "machine_heartbeat"
    compact = True
    metadata: Json | None = None

    def change(self, machine: Machine) -> None:
        machine.last_heartbeat = machine.updated_at = self.timestamp
        machine.metadata = merged(machine.metadata, self.metadata)
        if machine.status == "offline":
            machine.status = "online"


class MachineUpdated(MachineEvent):
    """Some of what is known of the machine changed; what is absent stays as it was."""

    event_type = "machine_updated"
    hostname: str | None = None
    docker_slots: list[int] | None = None
    status: MachineStatus | None = None
    metadata: Json | None = None

    def change(self, machine: Machine) -> None:
        machine.hostname = self.hostname or machine.hostname
        machine.status = self.status or machine.status
        if self.docker_slots is not None:
            machine.docker_slots = self.docker_slots
        machine.metadata = merged(machine.metadata, self.metadata)
        machine.updated_at = self.timestamp


class MachineRemoved(MachineEvent):
    """The machine was removed (a tombstone) until it is registered again."""

    event_type = "machine_removed"

    def change(self, machine: Machine) -> None:
        machine.is_removed = True
        machine.status, machine.docker_slots, machine.metadata = "online", None, {}


EVENTS: tuple[type[MachineEvent], ...] = (
    MachineRegistered,
    MachineHeartbeat,
    MachineUpdated,
    MachineRemoved,
)


@dataclass(slots=True, kw_only=True)
class Machine(Aggregate):
    """A machine and the docker slots that it has declared."""

    category: ClassVar[str] = "machine"

    hostname: str = ""
    docker_slots: list[int] | None = None
    status: MachineStatus = "online"
    last_heartbeat: datetime | None = None
    metadata: Json = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    is_removed: bool = False

    @property
    def is_known(self) -> bool:
        """Whether anyone has registered it, and nobody has removed it since."""
        return self.version > 0 and not self.is_removed

    def register(
        self, at: datetime, hostname: str, docker_slots: list[int] | None, metadata: Json
    ) -> None:
        """Make the machine known; a known one takes the new values and, if offline, is online."""
        require_room(self.metadata, metadata)
        if not self.is_known:
            self.record(
                MachineRegistered,
                at,
                hostname=hostname,
                docker_slots=docker_slots,
                metadata=metadata or None,
            )
            return
        self.record(
            MachineUpdated,
            at,
            hostname=hostname,
            docker_slots=docker_slots,
            metadata=metadata or None,
            status="online" if self.status == "offline" else None,
        )

    def beat(self, at: datetime, metadata: Json | None = None) -> None:
        """Note that the machine is up (S4 2.3.e)."""
        self.require_known()
        require_room(self.metadata, metadata)
        self.record(MachineHeartbeat, at, metadata=metadata or None)

    def update(
        self,
        at: datetime,
        status: MachineStatus | None = None,
        docker_slots: list[int] | None = None,
        metadata: Json | None = None,
    ) -> None:
        """Change what is given, if anything is."""
        self.require_known()
        if status is None and docker_slots is None and not metadata:
            return
        require_room(self.metadata, metadata)
        self.record(
            MachineUpdated,
            at,
            status=status,
            docker_slots=docker_slots,
            metadata=metadata or None,
        )

    def remove(self, at: datetime, live_sessions: Sequence[str]) -> None:
        """Remove the machine. Raises :class:`MachineInUse` while sessions run on it."""
        self.require_known()
        if live_sessions:
            raise MachineInUse(
                details={"machine_id": self.key, "active_sessions": list(live_sessions)}
            )
        self.record(MachineRemoved, at)

    def require_known(self) -> None:
        """Raise :class:`MachineNotFound` unless it was registered."""
        if not self.is_known:
            raise MachineNotFound.named(self.key)

    def require_available(self) -> None:
        """Raise :class:`MachineUnavailable` when work cannot be moved here (spec 7)."""
        if self.status != "online":
            state = "in maintenance" if self.status == "maintenance" else self.status
            raise MachineUnavailable(
                f"Machine {self.key} is {state}.",
                details={"machine_id": self.key, "machine_status": self.status},
            )

    def require_slot(self, slot: int | None) -> None:
        """Raise :class:`UnknownSlot` for a slot that the machine's declaration leaves out."""
        if slot is None or self.docker_slots is None or slot in self.docker_slots:
            return
        raise UnknownSlot.of(
            "docker_slot",
            f"machine {self.key} has no docker slot {slot}",
            details={"machine_id": self.key, "docker_slots": self.docker_slots},
        )
