"""The service's own absence is nobody's silence: the rules (spec 5)."""

from __future__ import annotations

from datetime import datetime

import pytest

from application.engine.serving import tolerance_seconds
from domain import liveness
from domain.errors import InstanceAlive, NotRecoverable
from domain.instances.instance import Instance
from domain.liveness import ALWAYS, Serving
from tests.support.given import THRESHOLD_MS, at, new_session, types_of

STALE = 120.0
# Away from second 20 to second 1,000.
BACK = Serving(since=at(1_000), absent_since=at(20))


def new_instance() -> Instance:
    instance = Instance(id=Instance.stream_id("apollo-PS-abc123"))
    instance.register(
        at(0), project="apollo", project_name="Apollo", instance_type="PS", scope="project"
    )
    return instance


def test_silence_begins_anew_with_the_service() -> None:
    assert liveness.silent_seconds(at(0), at(1_010), ALWAYS) == 1_010
    assert liveness.silent_seconds(at(0), at(1_010), BACK) == 10
    assert liveness.silent_seconds(at(1_004), at(1_010), BACK) == 6
    assert liveness.silent_seconds(at(0), at(990), BACK) == 0


@pytest.mark.parametrize(
    ("last", "unknown"),
    [(0, at(20)), (20.5, at(20.5)), (1_000, None), (1_001, None)],
    ids=["heard before", "just as it went", "just as it came", "heard since"],
)
def test_what_is_unknown_since_when(last: float, unknown: datetime | None) -> None:
    assert liveness.unknown_since(at(last), BACK) == unknown
    assert liveness.unknown_since(at(last), ALWAYS) is None
    # Nothing is known of the time before: then since the last sign of life.
    assert liveness.unknown_since(at(0), Serving(since=at(5))) == at(0)


def test_a_session_is_overdue_after_a_whole_threshold_of_serving() -> None:
    session = new_session()
    session.collect_events()

    assert not session.note_overdue(at(1_180), THRESHOLD_MS, BACK)
    assert session.status_at(at(1_180), THRESHOLD_MS, BACK) == "active"
    with pytest.raises(NotRecoverable):
        session.require_recoverable(at(1_180), THRESHOLD_MS, BACK)
    assert types_of(session) == []

    assert session.status_at(at(1_180.1), THRESHOLD_MS, BACK) == "stalled"
    session.require_recoverable(at(1_180.1), THRESHOLD_MS, BACK)
    assert session.note_overdue(at(1_180.1), THRESHOLD_MS, BACK)
    # What is recorded, and told, is the true age all the same.
    [stalled] = session.collect_events()
    assert vars(stalled)["age_ms"] == 1_180_100
    assert session.gap_seconds(at(1_180.1)) == 1_180.1


def test_a_recorded_stall_outlasts_an_absence() -> None:
    session = new_session()
    session.note_overdue(at(181), THRESHOLD_MS)

    assert session.status_at(at(1_001), THRESHOLD_MS, BACK) == "stalled"


def test_an_instance_is_stale_after_a_whole_threshold_of_serving() -> None:
    instance = new_instance()

    assert not instance.note_stale(at(1_120), STALE, BACK)
    assert instance.health_at(at(1_120), STALE, BACK) == ("healthy", [])
    with pytest.raises(InstanceAlive) as refused:
        instance.require_resumable(at(1_100), STALE, BACK)
    assert refused.value.details is not None
    assert refused.value.details["age_seconds"] == 1_100
    assert refused.value.details["seconds_until_stale"] == 20
    assert refused.value.details["unknown_since"] is not None
    assert "(the service was away since)" in refused.value.message

    instance.require_resumable(at(1_121), STALE, BACK)
    assert instance.note_stale(at(1_121), STALE, BACK)


@pytest.mark.parametrize(
    ("thresholds", "seconds"),
    [((120, 180, 300), 10), ((8, 9), 4), ((2, 2, 3), 1), ((0.1, 0.2), 0.5)],
)
def test_what_is_no_absence_is_short_beside_the_thresholds(
    thresholds: tuple[float, ...], seconds: float
) -> None:
    assert tolerance_seconds(*thresholds) == seconds
