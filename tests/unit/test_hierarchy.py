"""Global > Project > Orchestration (S1 task 2, spec 4)."""

from __future__ import annotations

from itertools import product

import pytest

from domain.instances.hierarchy import (
    MAY_BE_ROOT,
    PARENT_SCOPE,
    SCOPES,
    Scope,
    ScopeRule,
    require_pair,
)

ALLOWED: set[tuple[Scope, Scope | None]] = {
    ("global", None),
    ("project", None),
    ("project", "global"),
    ("orchestration", "project"),
}
PAIRS = list(product(SCOPES, (None, *SCOPES)))


@pytest.mark.parametrize(("scope", "parent"), [pair for pair in PAIRS if pair in ALLOWED])
def test_a_pair_that_fits_is_allowed(scope: Scope, parent: Scope | None) -> None:
    require_pair(scope, parent)


@pytest.mark.parametrize(("scope", "parent"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_any_other_pair_is_refused_naming_the_parent(scope: Scope, parent: Scope | None) -> None:
    with pytest.raises(ScopeRule) as refusal:
        require_pair(scope, parent)

    assert refusal.value.code == "scope_rule"
    assert [error["field"] for error in refusal.value.errors] == ["parent_id"]
    assert scope in refusal.value.message


def test_the_rules_are_told_for_every_scope() -> None:
    assert set(PARENT_SCOPE) == set(MAY_BE_ROOT) == set(SCOPES)
    assert "orchestration" not in PARENT_SCOPE.values()
