"""Machines: register, beat, update (S4 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from uuid import uuid4

from pydantic import Field

from application.engine.fields import Command, Found, Id, Metadata, Slot, Sought, UrlId
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from domain.aggregate import Json
from domain.machines.machine import Machine, MachineStatus
from domain.sessions.session import Session

Slots = Annotated[list[Slot], Field(max_length=1_000)]


class RegisterMachine(Command):
    """Register a machine, or update a registered one."""

    hostname: Id
    docker_slots: Slots
    machine_id: UrlId | None = None
    metadata: Metadata | None = None
    active_sessions: Found[list[str]] = Field(default_factory=list)


class UpdateMachine(Command):
    """Change a machine's status, slots or metadata."""

    machine_id: Sought
    status: MachineStatus | None = None
    docker_slots: Slots | None = None
    metadata: Metadata | None = None
    active_sessions: Found[list[str]] = Field(default_factory=list)


class BeatMachine(Command):
    """Record a machine's heartbeat."""

    machine_id: Sought
    metadata: Metadata | None = None
    active_sessions: Found[list[str]] = Field(default_factory=list)


class RemoveMachine(Command):
    """Remove a machine on which no session runs; its events are kept."""

    machine_id: Sought
    active_sessions: Found[list[str]] = Field(default_factory=list)


def register(work: UnitOfWork, command: RegisterMachine) -> Reply:
    """201 for a new machine, 200 for a known one."""
    if command.machine_id is None:
        machine = work.create(Machine, str(uuid4()))
    else:
        machine = work.load(Machine, command.machine_id)
    status = 200 if machine.is_known else 201
    machine.register(
        work.now, command.hostname, _distinct(command.docker_slots), command.metadata or {}
    )
    return Reply(view(machine, command.active_sessions), status)


def update(work: UnitOfWork, command: UpdateMachine) -> Reply:
    """The machine as it is then."""
    machine = work.load(Machine, command.machine_id)
    slots = None if command.docker_slots is None else _distinct(command.docker_slots)
    machine.update(work.now, command.status, slots, command.metadata)
    return Reply(view(machine, command.active_sessions))


def beat(work: UnitOfWork, command: BeatMachine) -> Reply:
    """The machine as it is then."""
    machine = work.load(Machine, command.machine_id)
    machine.beat(work.now, command.metadata)
    return Reply(view(machine, command.active_sessions))


def remove(work: UnitOfWork, command: RemoveMachine) -> Reply:
    """204. Raises ``MachineInUse`` if a session found on the machine turns out to be running."""
    machine = work.load(Machine, command.machine_id)
    work.prepare(*((Session, session_id) for session_id in command.active_sessions))
    sessions = [work.load(Session, session_id) for session_id in command.active_sessions]
    live = [s.key for s in sessions if s.machine_id == machine.key and not s.has_ended]
    machine.remove(work.now, live)
    return Reply({}, 204)


def view(machine: Machine, active_sessions: list[str]) -> Json:
    """A machine as clients see it; its sessions, not in its stream, come from the caller."""
    return {
        "machine_id": machine.key,
        "hostname": machine.hostname,
        "docker_slots": machine.docker_slots or [],
        "active_sessions": active_sessions,
        "status": machine.status,
        "last_heartbeat": machine.last_heartbeat,
        "metadata": machine.metadata,
        "created_at": machine.created_at,
        "updated_at": machine.updated_at,
    }


def _distinct(slots: list[int]) -> list[int]:
    return sorted(set(slots))


HANDLERS: Mapping[type, Handler] = {
    RegisterMachine: register,
    UpdateMachine: update,
    BeatMachine: beat,
    RemoveMachine: remove,
}
