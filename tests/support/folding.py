"""Read models without a database: events as the store would give them back, folded to rows."""

from __future__ import annotations

import uuid

import orjson

from application.eventstore.mapper import NewRow, Recorded
from projections.kernel.readmodel import Row, Table


def as_recorded(row: NewRow, position: int) -> Recorded:
    """What a reader of the log sees of a row that was appended at this position."""
    data, metadata = orjson.loads(orjson.dumps([row["event_data"], row["metadata"]]))
    return Recorded(
        position,
        uuid.UUID(row["event_id"]),
        row["stream_id"],
        row["sequence_num"],
        row["event_type"],
        row["timestamp"],
        data,
        metadata,
    )


class Folded:
    """A read model's rows, kept by its folds alone."""

    def __init__(self, model: Table) -> None:
        self.model = model
        self.rows: dict[str, Row] = {}
        [self._key] = model.key

    def fold(self, event: Recorded) -> None:
        """Take an event of the model's streams into account."""
        if event.event_type not in self.model.folds:
            return
        for (key,) in self.model.keys(event, lambda key: self.rows.get(key[0])):
            row = self.model.folds[event.event_type](self.rows.get(key), event)
            if row is None:
                self.rows.pop(key, None)
                continue
            if event.event_type in self.model.patches and not event.event_data:
                # The short way must lead where the long one does.
                patch = self.model.patches[event.event_type](event)
                assert {name: row[name] for name in patch} == patch
            self.rows[key] = row | {self._key: key}
