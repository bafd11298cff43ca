"""What every interface does with an operation: validate the input, then carry it out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, get_origin

import orjson
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from application.claims import ProveFence
from application.engine.fields import FoundMark
from application.engine.unit_of_work import Context, Outcome, Outdated
from application.idempotency import KeepReply, NothingKept, RecallReply
from domain.errors import (
    MAX_FIELD_ERRORS,
    FieldError,
    InstanceNotFound,
    InvalidInput,
    MachineNotFound,
    NotFound,
    SessionNotFound,
    StreamNotFound,
    TaskNotFound,
    WorkItemNotFound,
)
from interfaces import errors
from interfaces.operations import ActionParams, Operation, Services
from projections.kernel.reads import Freshness, before_writing, freshness

# How often what a command needs is found anew when it cannot be had. Each time it is something
# else, so hardly any command ever comes that far.
MAX_FINDS = 100
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Ids in paths that have a form: one of another form is of nothing that exists (spec 15, 8).
_UUIDS: Mapping[str, type[NotFound]] = {"session_id": SessionNotFound, "task_id": TaskNotFound}
_NAMED: Mapping[str, type[NotFound]] = {
    **_UUIDS,
    "instance_id": InstanceNotFound,
    "reference": InstanceNotFound,
    "machine_id": MachineNotFound,
    "stream_id": StreamNotFound,
    "item_id": WorkItemNotFound,
}
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def path_parameters(operation: Operation) -> list[str]:
    """The names of the parameters in the operation's path."""
    return _PATH_PARAMETER.findall(operation.path)


def body_fields(operation: Operation) -> list[str]:
    """The names of the fields that a client may send: not those in the path, nor the found ones."""
    in_path = path_parameters(operation)
    return [
        name
        for name, field in operation.model.model_fields.items()
        if name not in in_path and not any(isinstance(m, FoundMark) for m in field.metadata)
    ]


def accepted(operation: Operation) -> list[str]:
    """The fields that a client may send, under every name that they have."""
    return [
        name
        for field in body_fields(operation)
        for name in (field, *_other_names(operation.model.model_fields[field], field))
    ]


def _other_names(field: FieldInfo, name: str) -> list[str]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else ()
    return [str(choice) for choice in choices if choice != name]


def repeatable(operation: Operation) -> frozenset[str]:
    """The fields of which a query takes one or several."""
    if operation.query is None:
        return frozenset()
    fields = operation.model.model_fields.items()
    return frozenset(name for name, field in fields if get_origin(field.annotation) is list)


def checked_path(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """The parameters of a path. Raises ``NotFound`` for an id that nothing can have."""
    for name, value in parameters.items():
        not_found = _UUIDS.get(name)
        if not_found is not None and not _UUID.fullmatch(value):
            raise not_found.named(value)
        if "\x00" in value:
            raise _NAMED.get(name, NotFound).named(value)
    return parameters


class Answer(NamedTuple):
    """A query's result as JSON, and by how many events the read models lag behind."""

    body: bytes
    lag: int


class Undertaking:
    """An operation that a face offers, with the fields that its clients may send."""

    def __init__(self, operation: Operation, services: Services, allowed: Collection[str]) -> None:
        self.operation = operation
        self._services = services
        self._allowed = frozenset(allowed)
        self._fields = frozenset(operation.model.model_fields)

    def checked(self, values: Mapping[str, object], given: Mapping[str, object]) -> Any:
        """The operation's model of these values, of which a client gave ``given``.

        Raises :class:`InvalidInput` that names each field.
        """
        unknown: list[FieldError] = []
        more = 0
        if not self._allowed.issuperset(given):
            names = [name for name in given if name not in self._allowed]
            message = "is not a field of this request"
            # Tens of thousands need not be put into words to be counted.
            unknown = [{"field": name, "message": message} for name in names[:MAX_FIELD_ERRORS]]
            more = len(names) - len(unknown)
            values = {name: value for name, value in values.items() if name in self._fields}
        try:
            model: BaseModel = self.operation.model.model_validate(values)
        except ValidationError as e:
            fields = [*errors.invalid(e).errors, *unknown]
            raise InvalidInput.of_fields(fields, more=more) from None
        if unknown:
            raise InvalidInput.of_fields(unknown, more=more)
        return model

    async def command(self, command: BaseModel, context: Context) -> Outcome:
        """Submit a command, with what it takes from the read models.

        What was found may be out of date by then: the command says what to leave out, and it is
        looked for again. Raises ``Unavailable`` if that goes on and on.
        """
        prepare = self.operation.prepare
        if prepare is None:
            return await self._services.submit(command, context)
        before_writing.set(True)
        for _ in range(MAX_FINDS):
            found = await prepare(self._services, context.namespace, command)
            try:
                return await self._services.submit(command.model_copy(update=dict(found)), context)
            except Outdated as outdated:
                command = command.model_copy(update=outdated.learnt)
        raise Outdated

    async def query(self, namespace: str, params: Any) -> Answer:
        """Ask the read models or the history."""
        fresh = Freshness(params.min_position)
        freshness.set(fresh)
        assert self.operation.query is not None
        value = await self.operation.query(self._services, namespace, params)
        return Answer(_dumped(value), fresh.lag)

    async def action(self, params: ActionParams, context: Context) -> Outcome:
        """Carry out an action, once for each idempotency key."""
        before_writing.set(True)
        if context.idempotency is not None:
            try:
                return await self._services.submit(RecallReply(), context)
            except NothingKept:
                pass
        if params.claim is not None:
            fence = ProveFence(claim=params.claim)
            await self._services.submit(fence, context._replace(idempotency=None))
        assert self.operation.action is not None
        result = await self.operation.action(self._services, context, params)
        if context.idempotency is not None:
            # Of several at once with one key, all are told what the first one kept.
            return await self._services.submit(KeepReply(value=result.value), context)
        return Outcome(_dumped(result.value), 200, result.position)


def _dumped(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)
