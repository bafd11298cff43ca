"""Read models: what happened, arranged by the question it answers.

A read model can be thrown away and built again from the log at any time; nothing decides from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from projections.instances import Instances
from projections.machines import Machines
from projections.readmodel import ReadModel
from projections.recovery import Recovery
from projections.sessions import Sessions
from projections.tasks import Tasks
from projections.work_items import WorkItems

READ_MODELS: Sequence[ReadModel] = (
    Sessions(),
    Tasks(),
    Machines(),
    Instances(),
    WorkItems(),
    Recovery(),
)
