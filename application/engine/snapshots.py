"""Snapshots: which states are worth keeping, so that loading need not begin with event 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import orjson

from application.engine.batch import Batch
from application.eventstore.store import EventStore
from domain.aggregate import Json
from domain.errors import Unavailable

log = logging.getLogger("holdfast.engine")

SNAPSHOT_EVERY = 100
# A large state is worth a snapshot less often, or snapshots would outgrow the events.
LARGE_STATE_BYTES = 4_096
SNAPSHOT_LARGE_EVERY = 1_000
# Loading a stream reads all that was written since its last snapshot, and all others wait.
SNAPSHOT_BYTES = 4 * 1024 * 1024
# Of how many streams it is known how much was written to them; of more it is counted anew.
TRACKED = 200_000


class Snapshots:
    """Chooses the states that are worth keeping, and keeps them. One instance an engine."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        # How much was written to each stream since its last snapshot, by large commands.
        self._unsaved: dict[tuple[str, str], int] = {}

    def due(self, namespace: str, batch: Batch) -> list[Json]:
        """The snapshots that are due, of the aggregates as the batch leaves them."""
        due: list[Json] = []
        for stream_id, aggregate in batch.written.items():
            before = batch.versions[stream_id]
            grown = self._has_grown(namespace, stream_id, batch.written_bytes[stream_id])
            if not grown and not _crossed(before, aggregate.version, SNAPSHOT_EVERY):
                continue
            state = orjson.dumps(aggregate.state())
            if (
                not grown
                and len(state) > LARGE_STATE_BYTES
                and not _crossed(before, aggregate.version, SNAPSHOT_LARGE_EVERY)
            ):
                continue
            self._unsaved.pop((namespace, stream_id), None)
            due.append(
                {
                    "stream_id": stream_id,
                    "sequence_num": aggregate.version,
                    "state_version": aggregate.state_version,
                    "state": orjson.Fragment(state),
                }
            )
        return due

    def keep(self, namespace: str, states: Sequence[Json]) -> None:
        """Store these states. That they cannot be stored is no error: they only save time."""
        if not states:
            return
        try:
            self._store.insert_snapshots(namespace, states)
        except Unavailable:
            log.warning("snapshots_not_kept")

    def _has_grown(self, namespace: str, stream_id: str, size: int) -> bool:
        """Whether large commands wrote so much to a stream that loading it would be slow."""
        if size <= LARGE_STATE_BYTES:
            return False  # snapshots by number are frequent enough
        if len(self._unsaved) >= TRACKED:
            self._unsaved.clear()
        unsaved = self._unsaved.get((namespace, stream_id), 0) + size
        self._unsaved[namespace, stream_id] = unsaved
        return unsaved > SNAPSHOT_BYTES


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in ``before < version <= after``."""
    return after // every > before // every
