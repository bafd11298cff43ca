"""Whatever judges silence is told since when the service has been there (spec 5)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Methods of the domain that come to a verdict by how long nothing was heard.
JUDGES = {
    "silent_seconds",
    "is_overdue",
    "is_silent",
    "status_at",
    "health_at",
    "note_overdue",
    "note_stale",
    "require_recoverable",
    "prepare_recovery",
    "require_resumable",
    "take_up",
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of such a method, and where it is."""
    for room in ("application", "domain"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # A claim is told how long its holder has been silent.
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in JUDGES
                    and "claim" not in ast.unparse(node.func.value)
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_verdict_is_made_of_the_true_age() -> None:
    """What a holder's gap is passed to, or compared with: nothing but what tells ages to people."""
    judged = []
    for path in (ROOT / "application").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_verdict = isinstance(node, ast.Call) and (
                isinstance(node.func, ast.Attribute) and node.func.attr in {*JUDGES, "may_pass_on"}
            )
            if is_verdict and "gap_seconds(" in ast.unparse(node):
                judged.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert judged == []


def test_every_verdict_on_silence_knows_of_the_services_absences() -> None:
    found = list(calls())
    assert len(found) > len(JUDGES)
    without = [
        where
        for where, call in found
        if "serving" not in " ".join(ast.unparse(argument) for argument in call.args)
    ]
    assert [where for where in without if not where.startswith("domain/claims/claim.py")] == []
