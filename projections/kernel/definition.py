"""What tells one definition of a read model from another, and where its tables are.

A definition is its DDL, the version of its folds, and the definitions of what its DDL mentions.
Each has a schema of its own: a process reads and folds its own definitions and no others, so that
versions of the service run side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from projections.kernel.readmodel import Projection, ReadModel

PREFIX = "projection_"


@dataclass(frozen=True)
class Definition:
    """A read model as this version of the service has it."""

    model: ReadModel
    checksum: str

    @property
    def place(self) -> str:
        """The schema of its tables and views."""
        return f"{PREFIX}{self.model.name}_{self.checksum[:12]}"


def definitions(models: Sequence[ReadModel]) -> tuple[Definition, ...]:
    """The definitions of these models, which stand behind all that they need."""
    found: dict[str, Definition] = {}
    for model in models:
        parts = [f"{model.name} {model.version}", model.sql()["create"]]
        parts += [found[name].checksum for name in model.needs]
        checksum = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        found[model.name] = Definition(model, checksum)
    return tuple(found.values())


def folded(defined: Sequence[Definition], *, late: bool = False) -> Mapping[str, Projection]:
    """The models that are folded from events, by their place: the late ones, or the others."""
    return {
        each.place: each.model
        for each in defined
        if isinstance(each.model, Projection) and each.model.is_late == late
    }


def search_path(places: Iterable[str]) -> str:
    """Where queries look for tables: in these schemas, and in what all versions share."""
    return ",".join([*places, "public"])
