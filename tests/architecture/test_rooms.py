"""Where things live: small files, SQL in SQL files, time as an argument."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("domain", "application", "projections", "interfaces", "clients/python/holdfast")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

LONGEST = 450
# With a reason a file may be longer than that, up to this.
LONGEST_OF_ALL = 620
LONG_FOR_A_REASON = {
    "domain/sessions/session.py": "one aggregate's rules, each a few lines and named by its verb",
    "projections/instances.py": "one row's folds, and the questions that it answers",
    "interfaces/host/embedded_postgres.py": "one state machine around one process",
    "interfaces/http/protocol.py": "one state machine around one connection",
    "clients/python/holdfast/run_record.py": "one run, as its supervisor records it",
    "clients/python/holdfast/spool.py": "one file format: all that reads it or writes it",
    "clients/python/holdfast/types.py": "what the service answers: types, and nothing else",
}

# A statement's first words, as SQL is written here; prose does not begin like that.
STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT INTO\s|UPDATE\s+\S+\s+(AS\s|SET\s)|DELETE FROM\s|WITH\s+\w+\s+AS\s"
    r"|CREATE (TABLE|SCHEMA|VIEW|INDEX|ROLE|DATABASE)|DROP (TABLE|SCHEMA|VIEW)|ALTER \w+\s"
    r"|GRANT\s|LOCK TABLE\s|TRUNCATE\s|SET (LOCAL|ROLE)\s)"
)
SQL_FOR_A_REASON = {
    "application/eventstore/migrate.py": "what runs before there is any schema; role grants",
    "projections/schema.py": "DDL whose schema is a parameter: identifiers cannot be bound",
    "projections/kernel/readmodel.py": "one fold for every table: its names are parameters",
    "interfaces/host/embedded_postgres.py": "makes the database in which all else lives",
    "interfaces/host/postgres_logins.py": "single-user mode: a password is no parameter",
}


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name: str) -> None:
    """A file over 450 lines is one of those that say why."""
    assert _lines(name) <= (LONGEST_OF_ALL if name in LONG_FOR_A_REASON else LONGEST)


@pytest.mark.parametrize("name", NAMES)
def test_sql_is_in_sql_files(name: str) -> None:
    """No statement is written in Python, but for those that cannot be written elsewhere."""
    found = [text for text in _strings(ROOT / name) if STATEMENT.match(text)]
    assert found == [] or name in SQL_FOR_A_REASON


def test_the_exceptions_are_still_needed() -> None:
    """A file that has become small, or lost its SQL, leaves the list."""
    assert set(LONG_FOR_A_REASON) | set(SQL_FOR_A_REASON) <= set(NAMES)
    for name in LONG_FOR_A_REASON:
        assert _lines(name) > LONGEST, f"{name} needs no reason any more"
    for name in SQL_FOR_A_REASON:
        assert any(STATEMENT.match(text) for text in _strings(ROOT / name)), name


def _lines(name: str) -> int:
    return (ROOT / name).read_text(encoding="utf-8").count("\n")


def _strings(path: Path) -> Iterator[str]:
    """The literal strings of a module that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith(("domain/", "projections/"))]
)
def test_no_decision_reads_a_clock(name: str) -> None:
    """Time is an argument: the database's, passed on by the engine (spec 3)."""
    source = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"\b(datetime\.now|utcnow|time\.time|date\.today)\(", source)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_has_a_drawer_for_odds_and_ends(name: str) -> None:
    """No utils, helpers, managers, common or misc."""
    assert not re.search(r"(util|helper|manager|common|misc)s?\.py$", name)


def test_every_read_model_has_its_sql_beside_it() -> None:
    """One .py and one .sql each, listed in the one registry."""
    from projections import READ_MODELS

    for model in READ_MODELS:
        module = type(model).__module__.rpartition(".")[2]
        assert (ROOT / "projections" / f"{module}.py").exists()
        assert (ROOT / "projections" / f"{model.name}.sql").exists()
    assert len({model.name for model in READ_MODELS}) == len(READ_MODELS)


def test_every_sql_file_belongs_to_a_module() -> None:
    """No SQL file is left behind by a module that has gone."""
    python = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    from projections import READ_MODELS

    known = {f"{model.name}.sql" for model in READ_MODELS}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.sql"):
            assert path.name in known or path.parent.name == "migrations" or path.name in python
