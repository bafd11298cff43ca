"""The OpenAPI 3.1 document, assembled from the operations table."""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from domain.aggregate import Json
from interfaces.carry_out import body_fields, path_parameters
from interfaces.errors import STATUS
from interfaces.json_schema import JsonSchema
from interfaces.operations import OPERATIONS, Operation
from interfaces.replies.base import Health

Replies = dict[type[Any], Json]

_REF = "#/components/schemas/{model}"


def document() -> Json:
    """Every path with its parameters, body and replies."""
    models = {op.model for op in OPERATIONS}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda m: m.__name__)],
        ref_template=_REF,
        schema_generator=JsonSchema,
    )
    components: Json = schemas.get("$defs", {})
    replies, reply_components = _replies()
    paths: Json = {}
    for operation in OPERATIONS:
        path = re.sub(r":\w+\}", "}", operation.path)
        described = _operation(operation, components, replies)
        paths.setdefault(path, {})[operation.verb.lower()] = described
    health = _open("health", "Whether the process, and its database, serve.", replies[Health])
    paths["/health"] = {"get": health}
    paths["/api/docs"] = {"get": _open("docs", "This document.", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "holdfast",
            "version": version("holdfast-server"),
            "description": "The record that survives AI coding agents.",
        },
        "paths": paths,
        "components": {
            "schemas": {**_used(components), **reply_components, "Error": _error_schema()},
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "Bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"ApiKey": []}, {"Bearer": []}],
    }


def _replies() -> tuple[Replies, Json]:
    """The schema of each model of a reply, and the components that these refer to."""
    models = {op.reply.__name__: op.reply for op in OPERATIONS if op.reply is not None}
    models[Health.__name__] = Health
    schemas, components = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, model in sorted(models.items())],
        ref_template=_REF,
        schema_generator=JsonSchema,
    )
    return {models[name]: schema for (name, _), schema in schemas.items()}, components["$defs"]


def _operation(operation: Operation, components: Json, replies: Replies) -> Json:
    properties: Json = components[operation.model.__name__].get("properties", {})
    required = set(components[operation.model.__name__].get("required", []))
    fields = body_fields(operation)
    in_path = path_parameters(operation)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
    ]
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[2]],
        "parameters": parameters,
        "responses": _responses(operation, replies),
    }
    if operation.query is None:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
    in_body = [name for name in fields if _goes_in_body(operation, properties[name])]
    if in_body:
        described["requestBody"] = {
            "required": bool(required & set(in_body)),
            "content": {"application/json": {"schema": _body(properties, in_body, required)}},
        }
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": properties[name]}
        for name in fields
        if name not in in_body
    ]
    return described


def _goes_in_body(operation: Operation, schema: Json) -> bool:
    """A command's fields are in its body; of an action's, those that no query string can hold."""
    return operation.command or (operation.action is not None and schema.get("type") == "array")


def _body(properties: Json, fields: list[str], required: set[str]) -> Json:
    schema: Json = {
        "type": "object",
        "properties": {name: properties[name] for name in fields},
        "additionalProperties": False,
    }
    if needed := [name for name in fields if name in required]:
        schema["required"] = needed
    return schema


def _responses(operation: Operation, replies: Replies) -> Json:
    answered: Json = {}
    if operation.reply is not None:
        answered = {"content": _content(replies[operation.reply])}
    phrase = HTTPStatus(operation.status).phrase
    responses: Json = {str(operation.status): {"description": phrase, **answered}}
    if operation.status == 201:
        responses["200"] = {"description": "Already so", **answered}
    if operation.may_be_empty:
        responses["204"] = {"description": HTTPStatus(204).phrase}
    for status in sorted({*STATUS.values()} - {405}):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": _content({"$ref": _REF.format(model="Error")}),
        }
    return responses


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _open(name: str, summary: str, reply: Json) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "OK", "content": _content(reply)}},
    }


def _used(components: Json) -> Json:
    """What bodies and parameters refer to: the models themselves are taken apart."""
    models = {op.model.__name__ for op in OPERATIONS}
    return {name: schema for name, schema in components.items() if name not in models}


def _error_schema() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": [
            "statusCode",
            "error",
            "code",
            "message",
            "timestamp",
            "path",
            "request_id",
        ],
        "properties": {
            "statusCode": {"type": "integer"},
            "error": text,
            "code": text,
            "message": text,
            "timestamp": {"type": "string", "format": "date-time"},
            "path": text,
            "request_id": {"type": "string", "format": "uuid"},
            "errors": {
                "type": "array",
                "items": {"type": "object", "properties": {"field": text, "message": text}},
            },
            "details": {"type": "object"},
        },
    }
