"""Read models: tables built from the events, one for each kind of question.

A read model can be dropped and rebuilt from the log at any time; no decision rests on it.
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
