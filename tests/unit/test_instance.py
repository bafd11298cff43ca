"""An instance's rules, without I/O and without a clock (S0, S1, spec 4, 5 and 17)."""

from __future__ import annotations

from typing import Any

import pytest

from domain.aggregate import Json
from domain.errors import (
    HasLiveChildren,
    InstanceAlive,
    InstanceEnded,
    InstanceNotFound,
    UnknownEventType,
)
from domain.instances.instance import Health, Instance, health
from domain.instances.instance_events import (
    CRASH_LOOP_RESET_SECONDS,
    INSTANCE_EVENTS,
    WORK_EVENTS,
    InstanceHeartbeat,
    InstanceStale,
    ParentChanged,
    RestartRequested,
)
from domain.instances.work_events import CATALOGUE
from tests.support.given import at, events_of, payload_of, types_of

KEY = "odin-PS-8f4a2b"
STALE = 120.0


def new_instance(**rest: Any) -> Instance:
    """An instance that registered at the start and has told nothing yet."""
    instance = Instance(id=Instance.stream_id(KEY))
    given = {
        "project": "odin",
        "project_name": "Odin",
        "instance_type": "PS",
        "scope": "project",
        **rest,
    }
    instance.register(at(0), **given)
    events_of(instance)
    return instance


def restarting(max_restarts: int = 2, policy: str = "on_failure") -> Instance:
    """An instance that is to be started again when it falls silent."""
    return new_instance(
        restart_policy={
            "policy": policy,
            "max_restarts": max_restarts,
            "backoff_seconds": 5,
        }
    )


# Registration


def test_registering_is_the_first_sign_of_life() -> None:
    instance = new_instance(context_percent=12, current_epic="epic-003", tags=["gpu"])

    assert instance.is_known
    assert instance.key == KEY
    assert instance.status == "active"
    assert instance.created_at == instance.last_heartbeat == instance.updated_at == at(0)
    assert (instance.context_percent, instance.current_epic) == (12, "epic-003")
    assert instance.tags == ["gpu"]
    assert instance.version == 1


def test_one_that_never_registered_is_not_known() -> None:
    instance = Instance(id=Instance.stream_id(KEY))

    assert not instance.is_known
    with pytest.raises(InstanceNotFound):
        instance.beat(at(0))
    with pytest.raises(InstanceNotFound):
        instance.close(at(0))
    with pytest.raises(InstanceNotFound):
        instance.record_work(at(0), "epic_started", {"epic_id": "epic-003"})
    assert not instance.note_stale(at(999), STALE)
    assert events_of(instance) == []


# Heartbeats


def test_a_heartbeat_replaces_what_it_says_and_keeps_what_it_leaves_out() -> None:
    instance = new_instance()
    instance.beat(
        at(10),
        context_percent=40,
        current_epic="epic-003",
        metrics={"active_tasks": 2},
        git={"branch": "main"},
        native_session_id="n-1",
    )
    instance.beat(at(20), context_percent=41.5)

    assert instance.last_heartbeat == at(20)
    assert instance.context_percent == 41.5
    assert instance.current_epic == "epic-003"
    assert instance.metrics == {"active_tasks": 2}
    assert instance.git == {"branch": "main"}
    assert instance.native_session_id == "n-1"


def test_a_beat_of_zero_percent_is_something_said() -> None:
    instance = new_instance(context_percent=40)
    instance.beat(at(10), context_percent=0)

    assert instance.context_percent == 0


def test_another_activity_drops_the_reason_of_the_one_before() -> None:
    instance = new_instance()
    instance.beat(at(10), activity="waiting_for_human", activity_reason="which colour?")
    assert (instance.activity, instance.activity_reason) == ("waiting_for_human", "which colour?")
    instance.beat(at(20))
    assert (instance.activity, instance.activity_reason) == ("waiting_for_human", "which colour?")
    instance.beat(at(30), activity="working")

    assert (instance.activity, instance.activity_reason) == ("working", None)


def test_a_closed_instance_neither_beats_nor_works_nor_closes() -> None:
    instance = new_instance()
    instance.close(at(10))
    events_of(instance)

    for verb in (
        lambda: instance.beat(at(11)),
        lambda: instance.record_work(at(11), "epic_started", {"epic_id": "epic-003"}),
        lambda: instance.close(at(11)),
    ):
        with pytest.raises(InstanceEnded) as refusal:
            verb()
        assert refusal.value.code == "instance_closed"
        assert refusal.value.details == {"closed_at": at(10)}
    assert events_of(instance) == []


# Silence


@pytest.mark.parametrize(
    ("silence", "status"),
    [(0, "active"), (119.999, "active"), (120, "active"), (120.000001, "stale"), (900, "stale")],
)
def test_past_the_threshold_and_not_at_it_an_instance_is_stale(silence: float, status: str) -> None:
    """Spec 5: strictly greater than."""
    assert new_instance().status_at(at(silence), STALE) == status


def test_a_clock_that_runs_behind_makes_no_negative_age() -> None:
    assert new_instance().gap_seconds(at(-5)) == 0.0


def test_falling_silent_is_recorded_once_an_episode() -> None:
    instance = new_instance()

    assert not instance.note_stale(at(120), STALE)
    assert instance.note_stale(at(121), STALE)
    assert not instance.note_stale(at(999), STALE)

    [event] = events_of(instance)
    assert isinstance(event, InstanceStale)
    assert event.age_ms == 121_000
    assert instance.status == "stale"


def test_a_heartbeat_ends_the_episode_and_the_next_silence_is_another() -> None:
    instance = new_instance()
    instance.note_stale(at(121), STALE)
    instance.beat(at(130))
    assert instance.status == "active"
    assert not instance.note_stale(at(131), STALE)
    assert instance.note_stale(at(251), STALE)

    assert types_of(instance) == ["instance_stale", "instance_heartbeat", "instance_stale"]


def test_a_heartbeat_that_came_in_between_wins_over_the_sweep() -> None:
    instance = new_instance()
    instance.beat(at(119))

    assert not instance.note_stale(at(130), STALE)
    assert types_of(instance) == ["instance_heartbeat"]


def test_waiting_for_a_human_is_not_silence() -> None:
    """Spec 5: alive as long as it beats, and stale when it does not."""
    instance = new_instance()
    instance.beat(at(100), activity="waiting_for_human")

    assert instance.status_at(at(219), STALE) == "active"
    assert instance.status_at(at(221), STALE) == "stale"


def test_a_closed_instance_does_not_fall_silent() -> None:
    instance = new_instance()
    instance.close(at(1))

    assert instance.status_at(at(9_999), STALE) == "closed"
    assert not instance.note_stale(at(9_999), STALE)


# Restarts


def silence(instance: Instance, times: int, start: float = 0) -> float:
    """That many episodes of silence, each ended by one beat; the time of the last beat."""
    now = start
    for _ in range(times):
        instance.note_stale(at(now + 121), STALE)
        now += 130
        instance.beat(at(now))
    return now


def test_a_restart_is_requested_once_an_episode() -> None:
    instance = restarting()
    instance.note_stale(at(121), STALE)
    instance.note_stale(at(151), STALE)

    stale, request = events_of(instance)
    assert stale.event_type == "instance_stale"
    assert isinstance(request, RestartRequested)
    assert payload_of(request) == {"attempt": 1, "max_restarts": 2, "backoff_seconds": 5}
    assert instance.restarts == 1


def test_always_restarts_as_well() -> None:
    instance = restarting(policy="always")
    instance.note_stale(at(121), STALE)

    assert types_of(instance) == ["instance_stale", "restart_requested"]


@pytest.mark.parametrize(
    "policy", [None, {"policy": "never", "max_restarts": 3, "backoff_seconds": 5}]
)
def test_without_a_policy_that_allows_it_nobody_is_asked(policy: Json | None) -> None:
    instance = new_instance(restart_policy=policy)
    instance.note_stale(at(121), STALE)

    assert types_of(instance) == ["instance_stale"]
    assert not instance.crash_looping


def test_after_so_many_restarts_the_crash_loop_is_quarantined() -> None:
    instance = restarting(max_restarts=2)
    silence(instance, 3)

    events = events_of(instance)
    attempts = [event.attempt for event in events if isinstance(event, RestartRequested)]
    assert attempts == [1, 2]
    assert [e.crash_looping for e in events if isinstance(e, InstanceStale)] == [None, None, True]
    assert instance.crash_looping
    assert instance.restarts == 2
    assert instance.health_at(at(390), STALE) == ("degraded", ["crash loop"])


def test_a_quarantined_instance_is_not_restarted_however_often_it_falls_silent() -> None:
    instance = restarting(max_restarts=1)
    now = silence(instance, 2)
    events_of(instance)
    silence(instance, 3, now)

    assert "restart_requested" not in types_of(instance)
    assert instance.crash_looping


def test_ten_minutes_of_beating_end_the_crash_loop() -> None:
    """Spec 17: a crash-loop count resets after ten minutes of beating."""
    instance = restarting(max_restarts=1)
    revived = silence(instance, 2)
    for now in range(100, CRASH_LOOP_RESET_SECONDS, 100):
        instance.beat(at(revived + now))
    instance.beat(at(revived + CRASH_LOOP_RESET_SECONDS - 0.001))
    assert (instance.restarts, instance.crash_looping) == (1, True)
    instance.beat(at(revived + CRASH_LOOP_RESET_SECONDS))

    assert (instance.restarts, instance.crash_looping) == (0, False)
    events_of(instance)
    instance.note_stale(at(revived + 9_999), STALE)
    assert types_of(instance) == ["instance_stale", "restart_requested"]


def test_what_was_asked_for_and_not_carried_out_is_no_restart() -> None:
    """A laptop that slept: its supervisor, which saw the process alive, says so."""
    instance = restarting(max_restarts=1)
    for nap in (1, 2):
        instance.note_stale(at(200 * nap), 120)
        instance.beat(at(200 * nap + 1), restarts=0)
        assert (instance.restarts, instance.crash_looping) == (0, False)
        instance.collect_events()


def test_what_was_carried_out_is_counted_as_its_supervisor_tells() -> None:
    instance = restarting(max_restarts=3)
    instance.note_stale(at(200), 120)
    instance.beat(at(201), restarts=4)
    assert (instance.restarts, instance.told_restarts) == (1, 4)


def test_beating_for_less_than_ten_minutes_between_two_silences_resets_nothing() -> None:
    instance = restarting(max_restarts=3)
    now = silence(instance, 1)
    for _ in range(5):
        now += 100
        instance.beat(at(now))
    silence(instance, 1, now)

    assert instance.restarts == 2


def test_an_instance_that_may_never_be_restarted_leaves_its_quarantine_all_the_same() -> None:
    instance = restarting(max_restarts=0)
    instance.note_stale(at(121), STALE)
    assert types_of(instance) == ["instance_stale"]
    assert instance.crash_looping
    for now in range(130, 131 + CRASH_LOOP_RESET_SECONDS, 100):
        instance.beat(at(now))
    instance.beat(at(130 + CRASH_LOOP_RESET_SECONDS))

    assert not instance.crash_looping


# Health


@pytest.mark.parametrize(
    ("metrics", "context", "looping", "how", "reasons"),
    [
        (None, None, False, "healthy", []),
        ({}, 0, False, "healthy", []),
        ({"error_rate": 0.249, "response_time_ms": 4_999}, 89.9, False, "healthy", []),
        ({"error_rate": 0.25}, None, False, "degraded", ["error rate 0.25"]),
        ({"response_time_ms": 5_000}, None, False, "degraded", ["response time 5000 ms"]),
        (None, 90, False, "degraded", ["context 90% full"]),
        (None, 92.5, False, "degraded", ["context 92.5% full"]),
        (None, None, True, "degraded", ["crash loop"]),
        (
            {"error_rate": 1, "response_time_ms": 7_000, "queue_depth": 9},
            100,
            True,
            "degraded",
            ["error rate 1", "context 100% full", "response time 7000 ms", "crash loop"],
        ),
    ],
)
def test_a_live_instance_is_healthy_or_degraded_and_says_why(
    metrics: Json | None, context: float | None, looping: bool, how: Health, reasons: list[str]
) -> None:
    assert health("active", 1, metrics, context, looping) == (how, reasons)


def test_stale_and_closed_go_before_everything_else() -> None:
    assert health("stale", 130.9, {"error_rate": 1}, 99, True) == (
        "stale",
        ["no heartbeat for 130 s"],
    )
    assert health("closed", 130.9, {"error_rate": 1}, 99, True) == ("closed", ["closed"])


def test_an_unrecorded_silence_shows_in_the_health_at_once() -> None:
    assert new_instance().health_at(at(121), STALE) == ("stale", ["no heartbeat for 121 s"])


# Hierarchy


def test_a_parent_knows_its_children_in_the_order_in_which_they_came() -> None:
    parent = new_instance()
    for child in ("c2", "c1", "c3"):
        parent.add_child(at(1), child)
    parent.remove_child(at(2), "c1")

    assert list(parent.children) == ["c2", "c3"]
    assert types_of(parent) == ["child_added", "child_added", "child_added", "child_removed"]


def test_removing_one_that_is_no_child_records_nothing() -> None:
    parent = new_instance()
    parent.remove_child(at(1), "stranger")

    assert events_of(parent) == []


def test_a_change_of_parent_tells_both() -> None:
    child = new_instance(parent_id="old")
    child.change_parent(at(1), "new")
    child.change_parent(at(2), None)

    first, second = events_of(child)
    assert isinstance(first, ParentChanged)
    assert payload_of(first) == {"parent_id": "new", "previous_parent_id": "old"}
    assert payload_of(second) == {"parent_id": None, "previous_parent_id": "new"}
    assert child.parent_id is None


def test_live_children_are_named() -> None:
    parent = new_instance()
    parent.require_childless([])
    with pytest.raises(HasLiveChildren) as refusal:
        parent.require_childless(["c1", "c2"])

    assert refusal.value.details == {"children": ["c1", "c2"]}


# Successors


def test_only_a_silent_or_a_closed_instance_may_be_resumed() -> None:
    """Spec 17."""
    instance = new_instance()
    with pytest.raises(InstanceAlive) as refusal:
        instance.require_resumable(at(50), STALE)
    assert refusal.value.details == {
        "instance_id": KEY,
        "last_heartbeat": at(0),
        "age_seconds": 50,
        "seconds_until_stale": 70,
    }
    assert "50s ago" in refusal.value.message

    instance.require_resumable(at(121), STALE)
    instance.note_stale(at(121), STALE)
    instance.require_resumable(at(122), STALE)
    instance.beat(at(123))
    with pytest.raises(InstanceAlive):
        instance.require_resumable(at(124), STALE)
    instance.close(at(125))
    instance.require_resumable(at(126), STALE)
    with pytest.raises(InstanceNotFound):
        Instance(id=Instance.stream_id("nobody")).require_resumable(at(0), STALE)


def test_handing_over_ends_an_instance_that_had_not_ended() -> None:
    instance = new_instance()
    instance.hand_over(at(200), "odin-PS-000002")

    assert types_of(instance) == ["instance_resumed", "instance_closed"]
    with pytest.raises(InstanceEnded) as refusal:
        instance.beat(at(201))
    assert refusal.value.details == {"closed_at": at(200), "successor": "odin-PS-000002"}


def test_handing_over_leaves_the_end_of_one_that_was_closed() -> None:
    instance = new_instance()
    instance.close(at(10))
    events_of(instance)
    instance.hand_over(at(200), "odin-PS-000002")

    assert types_of(instance) == ["instance_resumed"]
    assert (instance.closed_at, instance.successor) == (at(10), "odin-PS-000002")


def test_a_successor_inherits_the_place_and_not_the_condition() -> None:
    former = new_instance(name="builder", tags=["gpu"], hostname="h", context_percent=95)
    former.beat(at(1), current_epic="e1", activity="idle", git={"branch": "main"})
    heir = Instance(id=Instance.stream_id("odin-PS-000002"))
    heir.register(at(2), **former.inheritance())

    assert heir.predecessor == KEY
    for name in ("project", "project_name", "instance_type", "scope", "name", "tags"):
        assert getattr(heir, name) == getattr(former, name)
    assert heir.current_epic == "e1"
    for name in ("hostname", "context_percent", "activity", "git", "standing", "checkpoint"):
        assert getattr(heir, name) is None
    [registered] = events_of(heir)
    assert "standing" not in {k for k, v in payload_of(registered).items() if v is not None}


def test_a_successor_s_crash_loop_is_counted_on() -> None:
    former = restarting(max_restarts=1)
    silence(former, 1)
    heir = Instance(id=Instance.stream_id("odin-PS-000002"))
    heir.register(at(1_000), **former.inheritance())
    assert (heir.restarts, heir.crash_looping) == (1, False)
    events_of(heir)
    heir.note_stale(at(1_121), STALE)

    assert types_of(heir) == ["instance_stale"]
    assert heir.crash_looping


# Work


def test_every_type_of_the_catalogue_has_its_event() -> None:
    assert set(WORK_EVENTS) == set(CATALOGUE)
    for name, event in WORK_EVENTS.items():
        assert event.event_type == name
        assert event.__doc__ == CATALOGUE[name].__doc__
    assert not set(WORK_EVENTS) & {event.event_type for event in INSTANCE_EVENTS}


def test_what_the_service_records_cannot_be_recorded_as_work() -> None:
    instance = new_instance()

    for name in ("instance_heartbeat", "instance_closed", "restart_requested", "no_such_type"):
        with pytest.raises(UnknownEventType):
            instance.record_work(at(1), name, {})
    assert events_of(instance) == []


def test_epics_set_and_clear_what_the_instance_is_at() -> None:
    instance = new_instance()
    instance.record_work(at(1), "epic_started", {"epic_id": "e1"})
    assert (instance.current_epic, instance.last_epic) == ("e1", "e1")
    instance.record_work(at(2), "epic_failed", {"epic_id": "e1"})
    assert (instance.current_epic, instance.last_epic) == (None, "e1")
    instance.record_work(at(3), "epic_started", {"epic_id": "e2"})
    instance.record_work(at(4), "epic_completed", {"epic_id": "e1"})

    assert (instance.current_epic, instance.last_epic) == ("e2", "e1")


def test_a_heartbeat_changes_the_current_epic_and_not_the_last() -> None:
    """Spec 17."""
    instance = new_instance()
    instance.record_work(at(1), "epic_started", {"epic_id": "e1"})
    instance.beat(at(2), current_epic="e2")

    assert (instance.current_epic, instance.last_epic) == ("e2", "e1")


def test_the_context_window_follows_its_event() -> None:
    instance = new_instance(context_percent=10)
    instance.record_work(at(1), "context_window_updated", {"context_percent": 91})

    assert instance.context_percent == 91


def test_a_checkpoint_s_state_is_the_one_to_come_back_to() -> None:
    instance = new_instance()
    instance.record_work(at(1), "checkpoint_created", {"label": "a", "state": {"step": 1}})
    instance.record_work(at(2), "checkpoint_loaded", {"checkpoint_id": "elsewhere"})
    instance.record_work(at(3), "checkpoint_loaded", {"checkpoint_id": "elsewhere", "state": None})
    assert instance.checkpoint_state == {"step": 1}
    instance.record_work(at(4), "checkpoint_loaded", {"checkpoint_id": "x", "state": {"step": 0}})
    assert instance.checkpoint_state == {"step": 0}
    instance.record_work(at(5), "checkpoint_created", {"label": "b", "state": {}})

    assert instance.checkpoint_state == {}


def test_the_newest_of_each_type_is_kept_with_its_number_as_evidence() -> None:
    instance = new_instance()
    instance.record_work(at(1), "test_passed", {"epic_id": "e1", "passed_count": 1})
    instance.record_work(at(2), "commit_created", {"commit": "a1b2c3d"})
    instance.record_work(at(3), "test_passed", {"epic_id": "e1", "passed_count": 2})

    assert instance.latest["test_passed"] == {
        "sequence_num": 4,
        "timestamp": "2026-01-01T12:00:03Z",
        "data": {"epic_id": "e1", "passed_count": 2},
    }
    assert instance.latest["commit_created"]["sequence_num"] == 3
    assert instance.last_event_type == "test_passed"


def test_work_is_not_a_sign_of_life() -> None:
    """Liveness is what heartbeats say (spec 5)."""
    instance = new_instance()
    instance.record_work(at(100), "command_logged", {"command": "make"})

    assert instance.last_heartbeat == at(0)
    assert instance.updated_at == at(100)


# State


def test_a_state_can_be_taken_and_put_back() -> None:
    instance = restarting()
    instance.beat(at(1), metrics={"error_rate": 0.5}, activity="idle")
    instance.record_work(at(2), "epic_started", {"epic_id": "e1"})
    instance.add_child(at(3), "c1")
    instance.note_stale(at(300), STALE)

    restored = Instance.from_state(instance.state())

    assert restored.state() == instance.state()
    assert restored.version == instance.version


def test_heartbeats_are_stored_compactly() -> None:
    """Spec 3: they arrive by the thousand per second."""
    assert InstanceHeartbeat.compact
    assert [event.event_type for event in INSTANCE_EVENTS if event.compact] == [
        "instance_heartbeat"
    ]
