"""Read models: what happened, arranged by the question it answers.

A read model can be thrown away and built again from the log at any time; nothing decides from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from projections.ages import Ages
from projections.instances import Instances
from projections.kernel.definition import Definition, definitions
from projections.kernel.readmodel import ReadModel
from projections.machines import Machines
from projections.recovery import Recovery
from projections.sessions import Sessions
from projections.tasks import Tasks
from projections.work_items import WorkItems

# Each stands behind those that it needs.
READ_MODELS: Sequence[ReadModel] = (
    Ages(),
    Sessions(),
    Tasks(),
    Machines(),
    Instances(),
    WorkItems(),
    Recovery(),
)

DEFINITIONS: Sequence[Definition] = definitions(READ_MODELS)
