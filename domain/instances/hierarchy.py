"""Global > Project > Orchestration: who may be whose child (S1, spec 4)."""

from __future__ import annotations

from typing import Literal, get_args

from domain.errors import InvalidInput

Scope = Literal["global", "project", "orchestration"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# The scope that a parent must have.
PARENT_SCOPE: dict[Scope, Scope | None] = {
    "global": None,
    "project": "global",
    "orchestration": "project",
}
# Whether an instance of the scope may live without a parent.
MAY_BE_ROOT: dict[Scope, bool] = {"global": True, "project": True, "orchestration": False}


class ScopeRule(InvalidInput):
    """The scopes do not fit: Global > Project > Orchestration."""

    code = "scope_rule"


def require_pair(scope: Scope, parent_scope: Scope | None) -> None:
    """Raise :class:`ScopeRule` unless an instance of ``scope`` may have such a parent, or none."""
    if parent_scope is None:
        if not MAY_BE_ROOT[scope]:
            raise _rule(f"an {scope} instance needs a {PARENT_SCOPE[scope]} as its parent")
        return
    needed = PARENT_SCOPE[scope]
    if needed is None:
        raise _rule(f"a {scope} instance has no parent")
    if needed != parent_scope:
        raise _rule(f"the parent of a {scope} instance is a {needed}, not a {parent_scope}")


def _rule(message: str) -> ScopeRule:
    return ScopeRule.of("parent_id", message)
