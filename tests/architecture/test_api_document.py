"""The OpenAPI document says what the operations table says, and holds together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_type_hints

import pytest
from typing_extensions import is_typeddict

from interfaces import replies
from interfaces.http.openapi import document
from interfaces.operations import OPERATIONS, Operation

Json = dict[str, Any]

DOCUMENT: Json = document()
VERBS = {"get", "post", "put", "patch", "delete"}
OPEN = {"/health", "/api/docs"}
BY_NAME = [pytest.param(operation, id=operation.name) for operation in OPERATIONS]


def described(operation: Operation) -> Json:
    """What the document says of an operation."""
    path = re.sub(r":\w+\}", "}", operation.path)
    found: Json = DOCUMENT["paths"][path][operation.verb.lower()]
    return found


def everything(value: object) -> Iterator[Json]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from everything(item)
    elif isinstance(value, list):
        for item in value:
            yield from everything(item)


def test_the_document_has_the_shape_of_openapi() -> None:
    """Version, title, paths that begin with a slash, known verbs, ids that are given once."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(DOCUMENT["info"])
    ids = []
    for path, verbs in DOCUMENT["paths"].items():
        assert path.startswith("/")
        assert set(verbs) <= VERBS
        for operation in verbs.values():
            ids.append(operation["operationId"])
            assert operation["summary"]
            assert operation["responses"]
            for status, response in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d", status)
                assert response["description"]
    assert len(ids) == len(set(ids))


def test_every_reference_resolves() -> None:
    """No ``$ref`` leads nowhere, and no schema is there that nothing refers to."""
    references = {found["$ref"] for found in everything(DOCUMENT) if "$ref" in found}
    for reference in references:
        target: Any = DOCUMENT
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            target = target[part]
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert schemas <= references


def test_the_document_has_nothing_but_the_table() -> None:
    """Every path of the document is a row of the table, or one of those that are open."""
    rows = {(re.sub(r":\w+\}", "}", op.path), op.verb.lower()) for op in OPERATIONS}
    told = {(path, verb) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert {path for path, _ in told - rows} <= OPEN
    assert rows <= told


@pytest.mark.parametrize("operation", BY_NAME)
def test_every_operation_is_documented(operation: Operation) -> None:
    """A sentence, a tag, its success and the errors; its path's parameters, all required."""
    told = described(operation)
    assert told["operationId"] == operation.name
    assert re.fullmatch(r"[A-Z0-9].*\.", told["summary"]), told["summary"]
    assert told["tags"]
    assert str(operation.status) in told["responses"]
    assert {"400", "401", "404", "409", "503"} <= set(told["responses"])
    in_path = {p["name"] for p in told["parameters"] if p["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)", operation.path))
    assert all(p["required"] for p in told["parameters"] if p["in"] == "path")
    names = [(p["in"], p["name"]) for p in told["parameters"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("operation", BY_NAME)
def test_every_field_that_may_be_sent_is_documented(operation: Operation) -> None:
    """What is not in the path is in the body's schema or among the parameters, and all of it."""
    told = described(operation)
    body = told.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = set(body.get("schema", {}).get("properties", {}))
    fields |= {p["name"] for p in told["parameters"] if p["in"] == "query"}
    in_path = set(re.findall(r"\{(\w+)", operation.path))
    model = set(operation.model.model_json_schema().get("properties", {}))
    assert fields <= model - in_path
    required = set(operation.model.model_json_schema().get("required", []))
    assert required - in_path <= fields


@pytest.mark.parametrize(
    "operation", [pytest.param(op, id=op.name) for op in OPERATIONS if op.verb != "GET"]
)
def test_every_write_documents_its_idempotency_key(operation: Operation) -> None:
    """Idempotency-Key goes with any POST, PUT, PATCH or DELETE (spec 9)."""
    headers = {p["name"] for p in described(operation)["parameters"] if p["in"] == "header"}
    assert "Idempotency-Key" in headers


def test_only_health_and_the_document_are_open() -> None:
    """Everything else needs a key (S4 1.3)."""
    assert DOCUMENT["security"]
    for path, verbs in DOCUMENT["paths"].items():
        for told in verbs.values():
            assert (told.get("security") == []) == (path in OPEN), path


@pytest.mark.parametrize("operation", BY_NAME)
def test_every_reply_is_documented(operation: Operation) -> None:
    """A success has the schema of its reply's model, or no body at all (204)."""
    responses = described(operation)["responses"]
    successes = {status: told for status, told in responses.items() if status.startswith("2")}
    if operation.reply is None:
        assert set(successes) == {"204"}
    for status, told in successes.items():
        if status == "204":
            assert "content" not in told
            continue
        assert operation.reply is not None
        name = operation.reply.__name__
        schema = told["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}
        properties = DOCUMENT["components"]["schemas"][name]["properties"]
        assert set(properties) == set(get_type_hints(operation.reply))


def test_no_model_of_a_reply_has_the_name_of_another() -> None:
    """Components are found by name: what is sent and what is answered have different ones."""
    sent = {name for op in OPERATIONS for name in op.model.model_json_schema().get("$defs", {})}
    modules = [
        import_module(f"interfaces.replies.{m.name}") for m in iter_modules(replies.__path__)
    ]
    answered = [
        name
        for module in modules
        for name, model in vars(module).items()
        if is_typeddict(model) and model.__module__ == module.__name__
    ]
    assert len(answered) == len(set(answered))
    assert not sent & set(answered)
