"""What every read model has to say of itself."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from application.registry import EVENTS
from domain.aggregate import Event
from domain.claims import claim, holder, work_item
from domain.instances import instance_events
from domain.machines import machine
from domain.sessions import session_events
from projections import DEFINITIONS, READ_MODELS
from projections.kernel.definition import definitions
from projections.kernel.readmodel import ReadModel, Table

FOLDS = Path(__file__).parents[1] / "contracts" / "folds.json"
HOW = "python -m tests.architecture.test_read_models"
TABLES = [model for model in READ_MODELS if isinstance(model, Table)]
# The events of the streams of each category.
BY_CATEGORY: Mapping[str, Sequence[type[Event]]] = {
    "session": (*session_events.EVENTS, *holder.EVENTS),
    "instance": (*instance_events.EVENTS, *holder.EVENTS),
    "machine": machine.EVENTS,
    "claim": (*claim.EVENTS, *work_item.EVENTS),
}


def source_of(model: ReadModel) -> str:
    """A fingerprint of what folds: a model's module without imports, comments and docstrings."""
    source = inspect.getsource(inspect.getmodule(type(model)) or inspect)
    lines = dict(enumerate(source.splitlines(), 1))
    kept: set[int] = set()
    for node in ast.parse(source).body:
        # What only reads has no part in the rows.
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.AsyncFunctionDef):
            kept.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for part in ast.walk(ast.parse(source)):
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
            kept.difference_update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    code = [lines[number].strip() for number in sorted(kept)]
    told = "\n".join(line for line in code if line and not line.startswith("#"))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def fingerprint(model: ReadModel) -> dict[str, object]:
    """What is kept of a model's folds."""
    return {"version": model.version, "source": source_of(model)}


def test_every_event_has_a_category() -> None:
    """No event is in no stream."""
    assert {cls for events in BY_CATEGORY.values() for cls in events} == set(EVENTS)


@pytest.mark.parametrize("model", TABLES, ids=[model.name for model in TABLES])
def test_every_event_type_is_folded_or_ignored(model: Table) -> None:
    """A new event type is decided upon in each read model of its streams."""
    happens = {cls.event_type for name in model.categories for cls in BY_CATEGORY[name]}
    missing = happens - set(model.folds) - model.ignored
    assert not missing, f"projections/{model.name}.py neither folds nor ignores {sorted(missing)}"
    assert set(model.folds) | model.ignored == happens
    assert not set(model.folds) & model.ignored


@pytest.mark.parametrize("model", TABLES, ids=[model.name for model in TABLES])
def test_whoever_changes_folds_decides_whether_rows_are_built_anew(model: Table) -> None:
    """Rows of other folds are those of another version, which has tables of its own."""
    assert json.loads(FOLDS.read_text()).get(model.name) == fingerprint(model), (
        f"{model.name}.py has changed. If its folds make other rows of the same events, or fold"
        " events that they did not, raise its `version`. Then: " + HOW
    )


def test_no_fingerprint_is_left_of_a_model_that_has_gone() -> None:
    assert set(json.loads(FOLDS.read_text())) == {model.name for model in TABLES}, HOW


def test_a_definition_is_its_ddl_its_version_and_what_it_needs() -> None:
    """Nothing else tells where the tables of a read model are."""

    class Base(ReadModel):
        name = "base"
        ddl = "CREATE TABLE base (n int)"

        @classmethod
        def sql(cls) -> dict[str, str]:
            return {"create": cls.ddl}

    class Above(Base):
        name = "above"
        needs = ("base",)
        ddl = "CREATE VIEW above AS SELECT * FROM base"

    class Later(Base):
        version = 2

    class Wider(Base):
        ddl = "CREATE TABLE base (n int, m int)"

    def places(*models: ReadModel) -> list[str]:
        return [each.place for each in definitions(models)]

    assert places(Base(), Above()) == places(Base(), Above())
    for other in (Later(), Wider()):
        assert not set(places(Base(), Above())) & set(places(other, Above()))


def test_every_definition_has_a_place_of_its_own() -> None:
    """A schema's name must not be longer than Postgres takes."""
    places = [each.place for each in DEFINITIONS]
    assert len(set(places)) == len(places)
    assert all(len(f"{place}_next") <= 63 for place in places)


if __name__ == "__main__":
    FOLDS.write_text(
        json.dumps({model.name: fingerprint(model) for model in TABLES}, indent=2) + "\n"
    )
