"""What is looked for once it may have been missed (decision 10)."""

from __future__ import annotations

from typing import cast

from holdfast.run_record import RunRecord
from holdfast.watch import Watch


class Record:
    """A run that the service once asked to be started again, in event 5 of its instance."""

    instance_id = "odin-PS-000000"

    @property
    def heartbeats(self) -> Record:
        return self

    def force(self, an_id: str) -> bool:
        return True

    def holds_claims(self) -> bool:
        return True

    def restart_requests(self, after: int) -> list[int]:
        return [number for number in (5,) if number > after]


def test_a_request_is_told_when_it_is_seen_and_not_again() -> None:
    asked: list[None] = []
    watch = Watch(cast(RunRecord, Record()), 1.0, on_restart=lambda: asked.append(None))

    watch._look()
    watch._look()

    assert len(asked) == 1
