"""What an instance records of its work: events of the catalogue, and checkpoints (S2)."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from pydantic import ValidationError

from application.engine.fields import BySupervisor, Data, Dated, Kind, Label, Metadata
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.findings import findings
from application.supervising import require_instance_supervisor
from domain.aggregate import Json
from domain.errors import InvalidInput, UnknownEventType
from domain.instances import work_events as catalogue
from domain.instances.instance import Instance
from domain.instances.instance_events import WORK_EVENTS

# Metadata keys that only the service may set (spec 17).
RESERVED_METADATA = frozenset(
    {"request_id", "actor", "command", "command_id", "class_version", "submitted_type"}
)


class EmitEvent(BySupervisor, Dated):
    """Record an event of a type from the catalogue in an instance's history."""

    instance_id: str
    event_type: Kind
    event_data: Data
    metadata: Metadata | None = None


class CreateCheckpoint(BySupervisor, Dated):
    """Save a state from which a successor can carry on."""

    instance_id: str
    label: Label
    state: Data


def emit(work: UnitOfWork, command: EmitEvent) -> Reply:
    """201 with the event's id and sequence number."""
    event_type = _catalogued(command.event_type)
    tags = command.metadata or {}
    reserved = RESERVED_METADATA & tags.keys()
    if reserved:
        raise InvalidInput.of_fields(
            [{"field": f"metadata.{name}", "message": "is reserved"} for name in sorted(reserved)]
        )
    data = _validated(event_type, command.event_data)
    instance = work.load(Instance, command.instance_id)
    require_instance_supervisor(instance, command)
    work.tags = dict(tags)
    if event_type != command.event_type:
        work.tags["submitted_type"] = command.event_type
    event = instance.record_work(work.now, event_type, data)
    return Reply(
        {
            "success": True,
            "event_id": work.request_id,
            "sequence_num": event.originator_version,
            "timestamp": event.timestamp,
        },
        201,
    )


def create_checkpoint(work: UnitOfWork, command: CreateCheckpoint) -> Reply:
    """201 with the checkpoint's id."""
    instance = work.load(Instance, command.instance_id)
    require_instance_supervisor(instance, command)
    checkpoint_id = str(uuid4())
    event = instance.record_work(
        work.now,
        "checkpoint_created",
        {"checkpoint_id": checkpoint_id, "label": command.label, "state": command.state},
    )
    return Reply(
        {
            "checkpoint_id": checkpoint_id,
            "instance_id": instance.key,
            "label": command.label,
            "sequence_num": event.originator_version,
            "created_at": event.timestamp,
        },
        201,
    )


def _catalogued(submitted: str) -> str:
    event_type = catalogue.ALIASES.get(submitted, submitted)
    if event_type not in WORK_EVENTS:
        raise UnknownEventType.of("event_type", "is not in the catalogue of event types")
    return event_type


def _validated(event_type: str, data: Json) -> Json:
    """The data as it is stored. Raises :class:`InvalidInput` that names each wrong field."""
    try:
        payload = catalogue.CATALOGUE[event_type].model_validate(data)
    except ValidationError as e:
        raise InvalidInput.of_fields(findings(e, within=("event_data",))) from None
    stored: Json = payload.model_dump(exclude_unset=True)
    return stored


HANDLERS: Mapping[type, Handler] = {
    EmitEvent: emit,
    CreateCheckpoint: create_checkpoint,
}
