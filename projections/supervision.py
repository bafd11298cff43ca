"""Who supervises a session or an instance, as their rows have it."""

from __future__ import annotations

from application.eventstore.mapper import Recorded
from projections.kernel.readmodel import Row

UNSUPERVISED: Row = {
    "supervisor": None,
    "supervisor_fence": None,
    "supervisor_hostname": None,
    "supervised_since": None,
}


def supervised(event: Recorded) -> Row:
    """The supervisor whom an event names; the event's number is its fence."""
    return {
        "supervisor": event.event_data["supervisor"],
        "supervisor_fence": event.sequence_num,
        "supervisor_hostname": event.event_data.get("hostname"),
        "supervised_since": event.timestamp,
    }
