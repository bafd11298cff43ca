"""Whether the packages that Python would import are the service's own (decision 21)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("domain", "application", "projections", "interfaces")
ADVICE = (
    "Install holdfast-server in an environment of its own (python -m venv, pipx, uv tool install),"
    " and start it without PYTHONPATH and from another folder."
)


def foreign() -> list[str]:
    """What is wrong: each package that is missing or comes from another place than this module.

    Nothing is imported: a package of somebody else could do anything.
    """
    home = Path(__file__).resolve().parents[2]
    problems = []
    for name in PACKAGES:
        found = _places(name)
        if not found:
            problems.append(f"the package {name} is missing; it belongs in {home}")
        elif found[0].parent != home:
            problems.append(f"the package {name} is that of {found[0]}, not the one in {home}")
    return problems


def complaint() -> str | None:
    """What to tell whoever starts the service, if any package is not its own."""
    problems = foreign()
    if not problems:
        return None
    return "\n".join(
        ["holdfast-server: another program's packages are in the way:", *problems, ADVICE]
    )


def _places(name: str) -> list[Path]:
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    if places is None:  # a single file may bear the name too
        places = [spec.origin] if spec and spec.origin else []
    return [Path(place).resolve() for place in places]
