"""Replies about machines (S4 2.3)."""

from __future__ import annotations

from typing_extensions import TypedDict

from domain.machines.machine import MachineStatus
from interfaces.replies.base import Json, Page, Time


class Machine(TypedDict):
    """A host with docker slots."""

    machine_id: str
    hostname: str
    docker_slots: list[int]
    # The ids of the live sessions on it.
    active_sessions: list[str]
    status: MachineStatus
    last_heartbeat: Time
    metadata: Json
    created_at: Time
    updated_at: Time


class MachinePage(Page):
    """Machines, oldest first."""

    machines: list[Machine]
