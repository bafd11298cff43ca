"""One row of the operations table as an ASGI application."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, get_origin
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from application.engine import Context, IdempotencyKey, Outcome
from application.fields import FoundMark
from application.idempotency import KeepReply, NothingKept, RecallReply
from domain.aggregate import Json
from domain.errors import FieldError, InvalidInput, NotFound, SessionNotFound, TaskNotFound
from interfaces import errors
from interfaces.auth import ApiKeys, Principal
from interfaces.http import body
from interfaces.operations import Operation, Services
from projections.reads import Freshness, freshness

MAX_IDEMPOTENCY_KEY = 255
# The head of a reply: status, body, and the headers that are its own.
Reply = tuple[int, bytes, list[tuple[bytes, bytes]]]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Ids in paths that have a form: one of another form is of nothing that exists (spec 15, 8).
_UUIDS: Mapping[str, type[NotFound]] = {"session_id": SessionNotFound, "task_id": TaskNotFound}
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


class Endpoint:
    """Authenticates, validates, carries out, answers. Raises; :class:`~.app.App` catches."""

    def __init__(self, operation: Operation, services: Services, keys: ApiKeys) -> None:
        self._operation = operation
        self._services = services
        self._keys = keys
        self._allowed = frozenset(body_fields(operation))
        self._fields = frozenset(operation.model.model_fields)
        self._repeatable = frozenset(
            name
            for name, field in operation.model.model_fields.items()
            if get_origin(field.annotation) is list
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        principal = self._authenticate(scope, headers)
        path = _checked_path(scope["path_params"])
        operation = self._operation
        if operation.command:
            status, content, own = await self._command(scope, receive, headers, principal, path)
        elif operation.query is not None:
            status, content, own = await self._query(scope, principal, path)
        else:
            status, content, own = await self._action(scope, receive, headers, principal)
        await respond(send, status, content, own)

    def _authenticate(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Principal:
        given = headers.get(b"x-api-key")
        if given is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            given = token.strip() if scheme.lower() == b"bearer" else None
        client = scope.get("client")
        key = None if given is None else given.decode("latin-1")
        return self._keys.authenticate(key, client[0] if client else "unknown")

    async def _command(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        principal: Principal,
        path: Mapping[str, str],
    ) -> Reply:
        fields = body.parse(await body.read(scope, receive))
        _no_parameters(scope)
        command = self._validated({**fields, **path}, fields)
        context = self._context(scope, headers, principal, fields)
        if self._operation.prepare is not None:
            found = await self._operation.prepare(self._services, principal.namespace, command)
            command = command.model_copy(update=dict(found))
        return _answered(await self._services.submit(command, context))

    async def _query(self, scope: Scope, principal: Principal, path: Mapping[str, str]) -> Reply:
        given = _parameters(scope, self._repeatable)
        params: Any = self._validated({**given, **path}, given)
        fresh = Freshness(params.min_position)
        freshness.set(fresh)
        assert self._operation.query is not None
        value = await self._operation.query(self._services, principal.namespace, params)
        own = [(b"x-read-lag", str(fresh.lag).encode())] if fresh.lag else []
        return 200, _dumped(value), own

    async def _action(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        principal: Principal,
    ) -> Reply:
        fields = body.parse(await body.read(scope, receive))
        given = {**fields, **_parameters(scope)}
        params = self._validated(given, given)
        context = self._context(scope, headers, principal, given)
        if context.idempotency is not None:
            try:
                return _answered(await self._services.submit(RecallReply(), context))
            except NothingKept:
                pass
        assert self._operation.action is not None
        result = await self._operation.action(self._services, context, params)
        if context.idempotency is not None:
            # Of several at once with one key, all are told what the first one kept.
            return _answered(await self._services.submit(KeepReply(value=result.value), context))
        return 200, _dumped(result.value), [_position(result.position)]

    def _validated(self, values: Mapping[str, object], given: Mapping[str, object]) -> BaseModel:
        """The model of these values, of which a client gave ``given``."""
        unknown: list[FieldError] = []
        if not self._allowed.issuperset(given):
            unknown = [
                {"field": name, "message": "is not a field of this request"}
                for name in given
                if name not in self._allowed
            ]
            values = {name: value for name, value in values.items() if name in self._fields}
        try:
            model = self._operation.model.model_validate(values)
        except ValidationError as e:
            raise errors.of_fields([*errors.invalid(e).errors, *unknown]) from None
        if unknown:
            raise errors.of_fields(unknown)
        return model

    def _context(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        principal: Principal,
        fields: Json,
    ) -> Context:
        request_id: str = scope["state"]["request_id"]
        key = headers.get(b"idempotency-key")
        return Context(
            namespace=principal.namespace,
            actor=principal.key_id,
            request_id=request_id,
            command=self._operation.name,
            idempotency=None if key is None else _idempotency(key, scope, principal, fields),
        )


def _idempotency(given: bytes, scope: Scope, principal: Principal, fields: Json) -> IdempotencyKey:
    key = given.decode("latin-1").strip()
    if not key or len(key) > MAX_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        raise InvalidInput.of(
            "Idempotency-Key", f"must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        )
    request = "\n".join((principal.key_id, scope["method"], scope["path"], key))
    canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(
        receipt_key=hashlib.sha256(request.encode()).hexdigest(),
        request_hash=hashlib.sha256(canonical).hexdigest(),
        given=key,
    )


def _checked_path(parameters: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in parameters.items():
        not_found = _UUIDS.get(name)
        if not_found is not None and not _UUID.fullmatch(value):
            raise not_found
        if "\x00" in value:
            raise NotFound
    return parameters


def _parameters(scope: Scope, repeatable: Collection[str] = ()) -> Json:
    given: Json = {}
    query: bytes = scope["query_string"]
    if not query:
        return given
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in repeatable:
            given.setdefault(name, []).append(value)
            continue
        if name in given:
            raise InvalidInput.of(name, "is given twice")
        if "\x00" in value:
            raise InvalidInput.of(name, "has the character \\u0000")
        given[name] = value
    return given


def _no_parameters(scope: Scope) -> None:
    for name in _parameters(scope):
        raise InvalidInput.of(name, "is not a parameter of this request")


def _answered(outcome: Outcome) -> Reply:
    content = b"" if outcome.status == 204 else outcome.body
    return outcome.status, content, [_position(outcome.position)]


def _position(position: int) -> tuple[bytes, bytes]:
    return b"x-event-position", str(position).encode()


def _dumped(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


async def respond(
    send: Send,
    status: int,
    content: bytes,
    own: list[tuple[bytes, bytes]],
    content_type: bytes = b"application/json",
) -> None:
    """Send a whole reply."""
    headers = [*own, (b"content-type", content_type)]
    if status != 204:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
