from __future__ import annotations

import pytest

from domain.errors import MachineNotFound, MachineUnavailable, UnknownSlot
from domain.machines.machine import Machine, MachineStatus
from tests.support.given import at, events_of, types_of


def registered(docker_slots: list[int] | None = None) -> Machine:
    machine = Machine(id=Machine.stream_id("m1"))
    machine.register(at(0), "tower", docker_slots, {"os": "linux"})
    return machine


def test_a_registered_machine_is_online() -> None:
    machine = registered([1, 2])

    assert machine.is_known
    assert (machine.hostname, machine.status) == ("tower", "online")
    assert machine.docker_slots == [1, 2]
    assert machine.created_at == machine.last_heartbeat == at(0)


def test_registering_again_updates() -> None:
    machine = registered([1])

    machine.register(at(1), "castle", [1, 2], {"gpu": True})

    assert (machine.hostname, machine.docker_slots) == ("castle", [1, 2])
    assert machine.metadata == {"os": "linux", "gpu": True}
    assert machine.created_at == at(0)
    assert types_of(machine) == ["machine_registered", "machine_updated"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("online", "online"), ("offline", "online"), ("maintenance", "maintenance")],
)
def test_a_sign_of_life_brings_an_offline_machine_online(
    before: MachineStatus, after: MachineStatus
) -> None:
    beating, registering = registered(), registered()
    for machine in (beating, registering):
        machine.update(at(1), status=before)

    beating.beat(at(2))
    registering.register(at(2), "tower", None, {})

    assert beating.status == registering.status == after
    assert beating.last_heartbeat == at(2)


def test_an_update_changes_what_it_names() -> None:
    machine = registered([1])

    machine.update(at(1), status="maintenance")
    assert (machine.status, machine.docker_slots) == ("maintenance", [1])
    machine.update(at(2), docker_slots=[])
    assert (machine.status, machine.docker_slots) == ("maintenance", [])
    machine.update(at(3), metadata={"os": None})
    assert machine.metadata == {}


def test_changing_nothing_records_nothing() -> None:
    machine = registered()
    events_of(machine)

    machine.update(at(1))

    assert types_of(machine) == []


def test_an_unknown_machine_cannot_be_touched() -> None:
    machine = Machine(id=Machine.stream_id("nobody"))

    with pytest.raises(MachineNotFound):
        machine.beat(at(0))
    with pytest.raises(MachineNotFound):
        machine.update(at(0), status="offline")


@pytest.mark.parametrize("status", ["offline", "maintenance"])
def test_no_work_is_moved_onto_a_machine_that_is_not_online(status: MachineStatus) -> None:
    machine = registered()
    machine.update(at(1), status=status)

    with pytest.raises(MachineUnavailable) as refused:
        machine.require_available()

    assert refused.value.details == {"machine_id": "m1", "machine_status": status}


def test_a_machine_that_declared_no_slots_takes_any() -> None:
    registered(None).require_slot(7)


def test_a_machine_that_declared_its_slots_takes_those() -> None:
    machine = registered([1, 2])

    machine.require_slot(1)
    machine.require_slot(None)
    with pytest.raises(UnknownSlot) as refused:
        machine.require_slot(3)

    assert refused.value.errors[0]["field"] == "docker_slot"
    assert refused.value.details == {"machine_id": "m1", "docker_slots": [1, 2]}


def test_a_machine_that_declared_to_have_no_slots_takes_none() -> None:
    with pytest.raises(UnknownSlot):
        registered([]).require_slot(0)


def test_a_state_can_be_taken_and_put_back() -> None:
    machine = registered([1, 2])
    machine.beat(at(5), {"load": 0.5})

    assert Machine.from_state(machine.state()) == machine
