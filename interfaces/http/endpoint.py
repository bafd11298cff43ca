"""One row of the operations table as an ASGI application."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

import orjson
from starlette.types import Receive, Scope, Send

from application.engine.unit_of_work import Context, IdempotencyKey, Outcome
from domain.aggregate import Json
from domain.errors import InvalidInput
from interfaces.access.auth import ApiKeys, Principal
from interfaces.carry_out import Undertaking, accepted, checked_path, repeatable
from interfaces.http import body
from interfaces.http.leaving import unless_gone
from interfaces.operations import Operation, Services
from interfaces.operations.following import asker

MAX_IDEMPOTENCY_KEY = 255
# A larger reply waits until its key's clients have read others.
LARGE = 256 * 1024
# The head of a reply: status, body, and the headers that are its own.
Reply = tuple[int, bytes, list[tuple[bytes, bytes]]]


class Endpoint:
    """Authenticates, validates, carries out, answers. Raises; :class:`~.app.App` catches."""

    def __init__(self, operation: Operation, services: Services, keys: ApiKeys) -> None:
        self._operation = operation
        self._undertaking = Undertaking(operation, services, accepted(operation))
        self._keys = keys
        self._repeatable = repeatable(operation)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        principal = authenticated(self._keys, scope, headers)
        path = checked_path(scope["path_params"])
        operation = self._operation
        if operation.command:
            status, content, own = await self._command(scope, receive, headers, principal, path)
        elif operation.query is not None:
            status, content, own = await self._query(scope, receive, principal, path)
        else:
            status, content, own = await self._action(scope, receive, headers, principal)
        await respond(send, status, content, own)

    async def _command(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        principal: Principal,
        path: Mapping[str, str],
    ) -> Reply:
        raw = await body.read(scope, receive)
        fields = body.parse(raw)
        _no_parameters(scope)
        command = self._undertaking.checked({**fields, **path}, fields)
        context = self._context(scope, headers, principal, fields, len(raw))
        return _answered(await self._undertaking.command(command, context))

    async def _query(
        self, scope: Scope, receive: Receive, principal: Principal, path: Mapping[str, str]
    ) -> Reply:
        given = _parameters(scope, self._repeatable)
        params = self._undertaking.checked({**given, **path}, given)
        asker.set(principal.key_id)
        doorkeeper = scope["state"].get("doorkeeper")
        content, lag = await unless_gone(
            self._undertaking.query(principal.namespace, params), receive
        )
        if doorkeeper is not None and len(content) > LARGE:
            who = principal.key_id
            if not doorkeeper.has_room(who):
                # It is made anew when there is: until then it would only take up more.
                content = b""
                async with doorkeeper.room(who):
                    query = self._undertaking.query(principal.namespace, params)
                    content, lag = await unless_gone(query, receive)
        return 200, content, [(b"x-read-lag", str(lag).encode())] if lag else []

    async def _action(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        principal: Principal,
    ) -> Reply:
        raw = await body.read(scope, receive)
        fields = body.parse(raw)
        given = {**fields, **_parameters(scope)}
        params = self._undertaking.checked(given, given)
        context = self._context(scope, headers, principal, given, len(raw))
        return _answered(await self._undertaking.action(params, context))

    def _context(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        principal: Principal,
        fields: Json,
        size: int,
    ) -> Context:
        request_id: str = scope["state"]["request_id"]
        key = headers.get(b"idempotency-key")
        return Context(
            namespace=principal.namespace,
            actor=principal.key_id,
            request_id=request_id,
            command=self._operation.name,
            idempotency=None if key is None else _idempotency(key, scope, principal, fields),
            size=size,
        )


def authenticated(keys: ApiKeys, scope: Scope, headers: Mapping[bytes, bytes]) -> Principal:
    """Who sends the request. Raises :class:`Unauthorized`."""
    given = headers.get(b"x-api-key")
    if given is None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else None
    client = scope.get("client")
    key = None if given is None else given.decode("latin-1")
    principal = keys.authenticate(key, client[0] if client else "unknown")
    # The connection is not a stranger's any more, and its body counts for this key.
    scope["state"]["principal"] = principal
    return principal


def _idempotency(given: bytes, scope: Scope, principal: Principal, fields: Json) -> IdempotencyKey:
    key = given.decode("latin-1").strip()
    if not key or len(key) > MAX_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        raise InvalidInput.of(
            "Idempotency-Key", f"must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        )
    request = (scope["method"], scope["path"], key)
    if "occurred_at" in fields:
        # Only a repetition that was kept says when it happened; it is the same request.
        fields = {name: value for name, value in fields.items() if name != "occurred_at"}
    canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(
        # Not of the API key, which may be another one by the time the request is repeated; and
        # with a first line that no receipt of the earlier form has.
        receipt_key=_hashed("principal", principal.name, *request),
        request_hash=hashlib.sha256(canonical).hexdigest(),
        given=key,
        earlier=_hashed(principal.key_id, *request),
    )


def _hashed(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _parameters(scope: Scope, repeatable: Collection[str] = ()) -> Json:
    given: Json = {}
    query: bytes = scope["query_string"]
    if not query:
        return given
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if "\x00" in value:
            raise InvalidInput.of(name, "has the character \\u0000")
        if name in repeatable:
            given.setdefault(name, []).append(value)
            continue
        if name in given:
            raise InvalidInput.of(name, "is given twice")
        given[name] = value
    return given


def _no_parameters(scope: Scope) -> None:
    for name in _parameters(scope):
        raise InvalidInput.of(name, "is not a parameter of this request")


def _answered(outcome: Outcome) -> Reply:
    content = b"" if outcome.status == 204 else outcome.body
    position = b"x-event-position", str(outcome.position).encode()
    return outcome.status, content, [position]


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
