"""The MCP face: the operations that have a tool, each under the checks that HTTP has (spec 10).

Importing this takes a second, most of it for the MCP library; see :mod:`interfaces.mcp.endpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import orjson
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as Described

from application.engine.unit_of_work import Context
from domain.aggregate import Json
from domain.errors import FieldError, HoldfastError, InvalidInput, Unavailable
from interfaces.access.auth import Principal
from interfaces.carry_out import (
    Undertaking,
    accepted,
    checked_path,
    path_parameters,
    repeatable,
)
from interfaces.errors import Internal, tool_error_of
from interfaces.http import body
from interfaces.http.leaving import ClientGone, unless_gone
from interfaces.json_schema import JsonSchema
from interfaces.operations import OPERATIONS, Operation, Services
from interfaces.operations.following import asker
from projections.kernel.paging import room

log = logging.getLogger("holdfast.mcp")

# A result says the same twice, once of it as text in which every quote is escaped: with pages of
# this size a reply has 8 MiB at most (spec 9).
PAGE_BYTES = 2 * 1024 * 1024

INSTRUCTIONS = """\
holdfast keeps the record that survives you: who works on what, whether they are alive, and what \
they did. Register once with mcp_meta_register_instance and keep the instance_id. Send \
mcp_meta_heartbeat at least once a minute. Before you start on something that others might do \
too, claim it with mcp_meta_claim_work_item, or let mcp_meta_next_work_item choose. Record what \
happens with mcp_meta_emit_event. Save what you would need after losing your context with \
mcp_meta_create_checkpoint. After a restart, use mcp_meta_resume_instance to carry on as the \
successor of the instance that you were. A refused call says why, field by field."""


def manager(services: Services, hosts: Sequence[str]) -> StreamableHTTPSessionManager:
    """The face over HTTP, stateless: any process answers any request, in JSON."""
    return StreamableHTTPSessionManager(
        server(services),
        json_response=True,
        stateless=True,
        security_settings=_rebinding_check(hosts),
        max_request_body_size=body.MAX_BYTES,
    )


def server(services: Services) -> Server[Any]:
    """The tools, whatever carries the messages. Of each request it takes the state from HTTP."""
    offered = [_Tool(operation, services) for operation in OPERATIONS if operation.tool]
    tools = {tool.name: tool for tool in offered}
    listed = ListToolsResult(tools=[tool.described for tool in offered])

    async def list_tools(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return listed

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        assert context.request is not None
        state = context.request.scope["state"]
        return await tool.call(params.arguments or {}, state)

    def input_schema(name: str) -> Mapping[str, Any] | None:
        return tools[name].described.input_schema if name in tools else None

    return Server(
        "holdfast",
        version=version("holdfast-server"),
        instructions=INSTRUCTIONS,
        get_tool_input_schema=input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


class _Tool:
    """One row of the operations table as a tool with flat parameters."""

    def __init__(self, operation: Operation, services: Services) -> None:
        assert operation.tool is not None
        self.name = operation.tool.name
        self._grouped = operation.tool.grouped
        self._in_path = path_parameters(operation)
        self._repeatable = repeatable(operation)
        # What an agent writes it reads at once; to wait for a position is for programs.
        taken = [f for f in (*self._in_path, *accepted(operation)) if f != "min_position"]
        self._undertaking = Undertaking(operation, services, taken)
        fields = [f for f in taken if f in operation.model.model_fields]
        self.described = Described(
            name=self.name,
            description=f"{operation.summary} {operation.tool.advice}".strip(),
            input_schema=_schema(operation, fields),
            annotations=ToolAnnotations(
                read_only_hint=operation.query is not None, open_world_hint=False
            ),
        )

    async def call(self, arguments: Json, state: Mapping[str, Any]) -> CallToolResult:
        """The answer as HTTP gives it; an error as something that a model can act on."""
        request_id: str = state["request_id"]
        try:
            body.inspect(arguments)
            if state["refused"] is not None:
                raise state["refused"]
            return await self._carry_out(arguments, request_id, state)
        except HoldfastError as e:
            error = e
        except ClientGone:
            error = Unavailable("Nobody waits for the answer any more.")
        except Exception:
            log.exception("tool_failed", extra={"tool": self.name})
            error = Internal()
        options = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
        told = orjson.dumps(tool_error_of(error, request_id), option=options, default=str)
        return _result(told, is_error=True)

    async def _carry_out(
        self, arguments: Json, request_id: str, state: Mapping[str, Any]
    ) -> CallToolResult:
        principal: Principal = state["principal"]
        given = self._flat(arguments)
        checked_path({f: v for f in self._in_path if isinstance(v := given.get(f), str)})
        checked = self._undertaking.checked(given, given)
        operation = self._undertaking.operation
        if operation.query is not None:
            room.set(PAGE_BYTES)
            asker.set(principal.key_id)
            query = self._undertaking.query(principal.namespace, checked)
            found, lag = await unless_gone(query, state["receive"])
            return _result(found, {"read_lag": lag} if lag else None)
        context = Context(
            principal.namespace, principal.key_id, request_id, operation.name, size=state["size"]
        )
        carry_out = self._undertaking.command if operation.command else self._undertaking.action
        outcome = await carry_out(checked, context)
        return _result(outcome.body or b"{}", {"event_position": outcome.position})

    def _flat(self, arguments: Json) -> Json:
        """The arguments with groups taken apart, and one value of several made a list."""
        flat = {name: value for name, value in arguments.items() if name not in self._grouped}
        for group, members in self._grouped.items():
            flat |= _members(group, arguments.get(group), members, flat)
        return {
            name: [value] if name in self._repeatable and isinstance(value, str) else value
            for name, value in flat.items()
        }


def _members(group: str, value: object, members: Sequence[str], beside: Json) -> Json:
    """What a group holds. Raises for what it does not take, and for what is ``beside`` it too."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput.of(group, "must be an object")
    wrong: list[FieldError] = []
    for name in value:
        if name not in members:
            message = f"is not a field of {group}, which has {', '.join(members)}"
            wrong.append({"field": f"{group}.{name}", "message": message})
        elif name in beside:
            wrong.append({"field": f"{group}.{name}", "message": "is given twice"})
    if wrong:
        raise InvalidInput.of_fields(wrong)
    return value


def _result(
    content: bytes, meta: dict[str, Any] | None = None, *, is_error: bool = False
) -> CallToolResult:
    """The same twice: as text for models, structured for programs."""
    return CallToolResult(
        content=[TextContent(type="text", text=content.decode())],
        structured_content=orjson.loads(content),
        is_error=is_error,
        _meta=meta,
    )


def _schema(operation: Operation, fields: Sequence[str]) -> Json:
    """The row's model as one flat object."""
    assert operation.tool is not None
    model = operation.model.model_json_schema(schema_generator=JsonSchema)
    definitions = model.get("$defs", {})
    offered = {name: _inlined(model["properties"][name], definitions) for name in fields}
    for name in repeatable(operation):
        offered[name] = {"anyOf": [offered[name]["items"], offered[name]]}
    for group, members in operation.tool.grouped.items():
        offered[group] = {
            "description": f"Takes {', '.join(members)} together.",
            "type": "object",
            "properties": {name: offered[name] for name in members},
            "additionalProperties": False,
        }
    schema: Json = {"type": "object", "properties": offered, "additionalProperties": False}
    if required := [name for name in model.get("required", ()) if name in fields]:
        schema["required"] = required
    return schema


def _inlined(schema: Any, definitions: Json) -> Any:
    """Without references, which not all clients follow, and without what tells a model nothing."""
    match schema:
        case {"$ref": str(ref), **rest}:
            found = _inlined(definitions[ref.removeprefix("#/$defs/")], definitions)
            return {**found, **rest}
        case dict():
            return {
                name: _inlined(value, definitions)
                for name, value in schema.items()
                if not (name == "title" and isinstance(value, str))
                and not (name == "default" and value is None)
            }
        case list():
            return [_inlined(item, definitions) for item in schema]
        case _:
            return schema


def _rebinding_check(hosts: Sequence[str]) -> TransportSecuritySettings:
    """Refuse what a browser sends here for another site; any host will do if none is listed."""
    allowed = [form for host in dict.fromkeys(hosts) for form in (host, f"{host}:*")]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=bool(hosts),
        allowed_hosts=allowed,
        allowed_origins=[f"{scheme}://{host}" for host in allowed for scheme in ("http", "https")],
    )
