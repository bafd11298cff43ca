"""The service's operations, by area."""

from __future__ import annotations

from holdfast.api.claims import Claims, WorkItems
from holdfast.api.history import History
from holdfast.api.instances import Instances, Registry
from holdfast.api.sessions import Machines, Sessions, Tasks

__all__ = [
    "Claims",
    "History",
    "Instances",
    "Machines",
    "Registry",
    "Sessions",
    "Tasks",
    "WorkItems",
]
