"""S4 1.2: the project's set-up; what stands in for NestJS and MongoDB is in docs/acceptance.md."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from importlib.metadata import version

import psycopg
import pytest

from interfaces.operations import OPERATIONS, Operation
from tests.acceptance.conftest import Start
from tests.acceptance.serving import ROOT, Server, attempt, ok, refused

PACKAGES = ("domain", "application", "projections", "interfaces")


def test_every_dependency_is_declared_and_locked() -> None:
    """AC-1.2.a In place of package.json: each dependency has bounds, and a hash in the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    for dependency in project["dependencies"]:
        package = re.split(r"[\[<>=;, ]", dependency)[0]
        assert re.search(r"[<>=]=?\d", dependency), f"{dependency} has no bounds"
        assert f"\n{package}=={version(package)} " in lock.replace("[binary]", "").replace(
            "[binary, pool]", ""
        ), f"{package} is not locked at the version that is installed"
    for needed in ("eventsourcing", "psycopg", "pydantic", "starlette", "uvicorn"):
        assert any(d.startswith(needed) for d in project["dependencies"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.name))
def test_every_operation_is_served(server: Server, operation: Operation) -> None:
    """AC-1.2.b In place of modules in AppModule: each row of the operations table has a route.

    Without a key the route itself answers, 401; an unknown path or method would be 404 or 405.
    """
    path = re.sub(r"\{\w+(:\w+)?\}", "x", operation.path)
    with server.nobody() as nobody:
        refused(nobody.request(operation.verb, path), 401, "unauthorized")


def test_the_service_starts_on_the_database_it_is_given(database: str, start: Start) -> None:
    """AC-1.2.c DATABASE_URL in place of MONGODB_URI: /health answers, a write is stored there."""
    with start(database) as server, server.default() as api:
        assert ok(api.get("/health"))["status"] == "ok"
        session_id = api.session()["session_id"]
    with psycopg.connect(database) as store:
        query = "SELECT event_type FROM event_store WHERE stream_id = %s AND sequence_num = 1"
        assert store.execute(query, [f"session-{session_id}"]).fetchone() == ("session_created",)


def test_a_start_without_what_it_needs_names_it() -> None:
    """AC-1.2.d In production, DATABASE_URL and API_KEYS missing are both named, and it exits."""
    failed = attempt(ENVIRONMENT="production")
    assert failed.returncode == 2
    assert "DATABASE_URL: required" in failed.stderr
    assert "API_KEYS: required" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_can_be_imported(package: str) -> None:
    """AC-1.2.e In place of compiling TypeScript: all modules load; `make lint` runs mypy."""
    root = importlib.import_module(package)
    found = list(pkgutil.walk_packages(root.__path__, f"{package}."))
    assert found
    for module in found:
        importlib.import_module(module.name)


def test_types_are_checked_strictly() -> None:
    """AC-1.2.e mypy runs with strict = true, and nothing of the service is left out."""
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"] is True
    assert "exclude" not in mypy
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"{package}/" in makefile for package in PACKAGES)


def test_the_documentation_is_served_openly(server: Server) -> None:
    """AC-1.2.f GET /api/docs needs no key and is an OpenAPI document with every path."""
    with server.nobody() as nobody:
        response = nobody.get("/api/docs")
    document = ok(response)
    assert response.headers["content-type"] == "application/json"
    assert document["openapi"].startswith("3.")
    for path in ("/api/sessions", "/api/tasks/{task_id}", "/api/machines/{machine_id}", "/health"):
        assert path in document["paths"]
