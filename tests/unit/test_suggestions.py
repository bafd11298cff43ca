"""Suggestions: each rule, the events that show it, and the events that settle it (S2, spec 7)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from domain.aggregate import Json
from domain.instances.instance import Instance
from domain.instances.standing import MOST_KEPT, QUOTED_CHARACTERS
from domain.instances.suggestions import RULES, epic_of, results_of, suggestions
from tests.support.given import at

Step = tuple[str, Json]
E3 = {"epic_id": "epic-003"}
S2_EXAMPLE: Sequence[Step] = [
    ("epic_started", E3),
    ("test_passed", {**E3, "passed_count": 5, "total_count": 8}),
    ("epic_completed", E3),
    ("prd_updated", {**E3, "version": "1.1"}),
]
S2_SENTENCE = (
    "Epic epic-003 complete. 5/8 tests passed (3 not passing). PRD updated. Ready for next epic."
)


def told(*steps: Step, **registered: object) -> Instance:
    """An instance that did this: the first step is event 2. ``beat`` is a heartbeat."""
    instance = Instance(id=Instance.stream_id("odin-PS-8f4a2b"))
    names = {"project": "odin", "project_name": "odin", "instance_type": "PS", "scope": "project"}
    instance.register(at(0), **{**names, **registered})
    for second, (kind, data) in enumerate(steps):
        if kind == "beat":
            instance.beat(at(second), **data)
        else:
            instance.record_work(at(second), kind, data)
    return instance


def found(rule: str, *steps: Step) -> list[tuple[str, list[int]]]:
    """What one rule says after these steps."""
    return [(text, why) for text, name, why in suggestions(told(*steps)) if name == rule]


# S2's sentence


def test_the_example_of_s2_comes_out_to_the_letter() -> None:
    """S2: with events the resume engine says this."""
    first, *rest = suggestions(told(*S2_EXAMPLE))

    assert first == (S2_SENTENCE, "where_it_stands", [3, 4, 5])
    assert [s.rule for s in rest] == ["tests_not_passing"]


@pytest.mark.parametrize(
    "results",
    [
        [("test_passed", {"passed_count": 5, "failed_count": 3})],
        [("test_passed", {"passed_count": 5, "test_count": 8})],
        [("test_failed", {"passed_count": 5, "failed_count": 3})],
        [("test_failed", {"failed_count": 3, "total_count": 8})],
        [("test_passed", {"passed_count": 5}), ("test_failed", {"failed_count": 3})],
        [
            ("test_passed", {"passed_count": 4, "test_type": "unit", "total_count": 4}),
            ("test_failed", {"passed_count": 1, "test_type": "e2e", "failed_count": 3}),
        ],
        [
            ("test_passed", {"passed_count": 5, "total_count": 5, "test_type": "unit"}),
            ("test_failed", {"failed_count": 3, "test_type": "e2e"}),
        ],
    ],
)
def test_the_sentence_is_the_same_however_the_counts_are_told(results: list[Step]) -> None:
    steps = [S2_EXAMPLE[0], *((kind, {**E3, **data}) for kind, data in results), *S2_EXAMPLE[2:]]

    assert suggestions(told(*steps))[0].text == S2_SENTENCE


@pytest.mark.parametrize(
    ("steps", "text", "evidence"),
    [
        ([("epic_started", E3)], "Epic epic-003 in progress. Continue there.", [2]),
        (
            [("epic_started", E3), ("test_passed", {**E3, "passed_count": 45, "failed_count": 0})],
            "Epic epic-003 in progress. 45/45 tests passed. Continue there.",
            [2, 3],
        ),
        (
            [("epic_completed", {**E3, "tests_passed": 45})],
            "Epic epic-003 complete. 45 tests passed. Ready for next epic.",
            [2],
        ),
        (
            [("epic_failed", {**E3, "reason": "no quota\nleft."})],
            "Epic epic-003 failed: no quota left. Find out why before it is tried again.",
            [2],
        ),
        (
            [("epic_failed", E3), ("test_failed", {**E3, "test_type": "e2e"})],
            "Epic epic-003 failed. E2e tests failed. Find out why before it is tried again.",
            [2, 3],
        ),
        (
            [("epic_completed", E3), ("beat", {"current_epic": "epic-004"})],
            "Epic epic-003 complete. Continue with epic epic-004.",
            [2, 3],
        ),
        (
            [("epic_completed", E3), ("beat", {"current_epic": "epic-003"})],
            "Epic epic-003 complete. Ready for next epic.",
            [2],
        ),
        (
            [("beat", {"current_epic": "epic-004"})],
            "Epic epic-004 in progress. Continue there.",
            [2],
        ),
        (
            [("epic_completed", E3), ("epic_started", E3)],
            "Epic epic-003 in progress. Continue there.",
            [3],
        ),
    ],
)
def test_the_first_suggestion_tells_where_the_last_epic_stands(
    steps: list[Step], text: str, evidence: list[int]
) -> None:
    assert found("where_it_stands", *steps) == [(text, evidence)]


def test_an_instance_that_did_nothing_has_no_suggestions() -> None:
    assert suggestions(told(("beat", {"git": {"branch": "main", "dirty_files": 0}}))) == []


def test_an_epic_of_its_registration_is_in_progress() -> None:
    [only] = suggestions(told(current_epic="epic-004"))

    assert (only.text, only.evidence) == ("Epic epic-004 in progress. Continue there.", [1])


def test_results_of_other_epics_are_not_counted_with_the_last_one_s() -> None:
    instance = told(
        ("test_failed", {"epic_id": "epic-002", "passed_count": 1, "failed_count": 9}),
        ("epic_started", E3),
        ("test_passed", {**E3, "passed_count": 2, "failed_count": 0}),
    )

    assert results_of(epic_of(instance)) == (2, 0, 2, [4])


def test_a_later_run_replaces_the_earlier_one_of_its_type() -> None:
    instance = told(
        ("epic_started", E3),
        ("test_failed", {**E3, "passed_count": 5, "failed_count": 3}),
        ("test_passed", {**E3, "passed_count": 8, "failed_count": 0}),
    )

    assert results_of(epic_of(instance)) == (8, 0, 8, [4])
    assert "tests_not_passing" not in {s.rule for s in suggestions(instance)}


def test_a_run_that_announced_its_tests_is_counted_against_them() -> None:
    instance = told(
        ("epic_started", E3),
        ("test_started", {**E3, "total_count": 8}),
        ("test_passed", {**E3, "passed_count": 5}),
    )
    assert results_of(epic_of(instance)) == (5, 3, 8, [4])

    instance.record_work(at(9), "test_passed", {**E3, "passed_count": 6})
    assert results_of(epic_of(instance)) == (6, 0, 6, [5])


def test_of_tests_that_told_nothing_nothing_is_known() -> None:
    assert results_of(epic_of(told(("epic_started", E3)))) is None
    assert results_of(epic_of(told(("epic_started", E3), ("test_passed", E3)))) == (
        None,
        None,
        None,
        [3],
    )


# The other rules: what they find, and what settles it


FINDINGS: Sequence[tuple[str, list[Step], str, list[int], Step | None]] = [
    (
        "waiting_for_human",
        [("beat", {"activity": "waiting_for_human", "activity_reason": "which colour?"})],
        "It was waiting for a human: which colour? Get the answer first.",
        [2],
        ("beat", {"activity": "working"}),
    ),
    (
        "tests_not_passing",
        [("test_failed", {**E3, "passed_count": 7, "failed_count": 1, "test_type": "unit"})],
        "Epic epic-003: 1 of 8 unit tests not passing; make it pass.",
        [2],
        ("test_passed", {**E3, "passed_count": 8, "test_type": "unit"}),
    ),
    (
        "tests_not_passing",
        [("test_failed", {**E3, "failed_count": 2})],
        "Epic epic-003: 2 tests not passing; make them pass.",
        [2],
        ("test_passed", E3),
    ),
    (
        "tests_not_passing",
        [("test_failed", E3)],
        "Epic epic-003: tests failed; make them pass.",
        [2],
        ("test_passed", E3),
    ),
    (
        "tests_unfinished",
        [("test_started", {**E3, "test_type": "e2e"})],
        "Epic epic-003: e2e tests began and did not end; run them again.",
        [2],
        ("test_failed", {**E3, "test_type": "e2e"}),
    ),
    (
        "validation_failed",
        [("validation_failed", {**E3, "reason": "no docs"})],
        "Validation of epic epic-003 failed: no docs. Correct it, then validate again.",
        [2],
        ("validation_passed", E3),
    ),
    (
        "validation_failed",
        [("validation_failed", {})],
        "Validation failed. Correct it, then validate again.",
        [2],
        ("validation_passed", {}),
    ),
    (
        "epic_unfinished",
        [("epic_started", {"epic_id": "a"}), ("epic_started", E3)],
        "Epic a was started and not finished.",
        [2],
        ("epic_completed", {"epic_id": "a"}),
    ),
    (
        "epic_unfinished",
        [("epic_failed", {"epic_id": "a", "reason": "stuck"}), ("epic_started", E3)],
        "Epic a failed: stuck. Decide whether to try it again.",
        [2],
        ("epic_completed", {"epic_id": "a"}),
    ),
    (
        "deployment_failed",
        [("deployment_failed", {"service": "api", "error_message": "exit 1"})],
        "Deployment of api failed: exit 1. Deploy again or roll back.",
        [2],
        ("deployment_completed", {"service": "api"}),
    ),
    (
        "deployment_unfinished",
        [("deployment_started", {"service": "api"})],
        "Deployment of api began and did not end; find out how it went.",
        [2],
        ("deployment_failed", {"service": "api"}),
    ),
    (
        "uncommitted_changes",
        [("beat", {"git": {"branch": "main", "dirty_files": 3}})],
        "3 changed files are not committed on branch main.",
        [2],
        ("beat", {"git": {"branch": "main", "dirty_files": 0}}),
    ),
    (
        "unpushed_commits",
        [("beat", {"git": {"unpushed_commits": 1}})],
        "1 commit is not pushed.",
        [2],
        ("beat", {"git": {"unpushed_commits": 0}}),
    ),
    (
        "pull_request_open",
        [("pr_created", {"pr_url": "https://forge/1"})],
        "Pull request https://forge/1 is not merged.",
        [2],
        ("pr_merged", {"pr_url": "https://forge/1"}),
    ),
    (
        "checkpoint",
        [("checkpoint_created", {"label": "half way", "state": {}})],
        "Load checkpoint “half way” and go on from there.",
        [2],
        None,
    ),
    (
        "checkpoint",
        [
            (
                "checkpoint_loaded",
                {"checkpoint_id": "c", "label": "l", "state": {}, "from_instance_id": "odin-PS-1"},
            )
        ],
        "Go on from checkpoint “l”, loaded from odin-PS-1.",
        [2],
        None,
    ),
    (
        "commits_since_checkpoint",
        [
            ("commit_created", {"commit": "0"}),
            ("checkpoint_created", {"label": "a", "state": {}}),
            ("commit_created", {"commit": "1"}),
            ("commit_created", {"commit": "2"}),
        ],
        "2 commits were made since checkpoint “a”, the last one 2.",
        [3, 5],
        ("checkpoint_created", {"label": "b", "state": {}}),
    ),
    (
        "context_nearly_full",
        [("beat", {"context_percent": 92.5})],
        "The context window was 92.5% full; begin with a fresh one.",
        [2],
        ("context_window_updated", {"context_percent": 89}),
    ),
    (
        "next_epic",
        [("epic_planned", {"epic_id": "epic-004", "feature_name": "billing"})],
        "Planned next: epic epic-004 (billing).",
        [2],
        ("epic_started", {"epic_id": "epic-004"}),
    ),
]


@pytest.mark.parametrize(
    ("rule", "steps", "text", "evidence", "settled"),
    [pytest.param(*case, id=f"{case[0]}-{n}") for n, case in enumerate(FINDINGS)],
)
def test_a_rule_finds_what_is_open_until_it_is_settled(
    rule: str, steps: list[Step], text: str, evidence: list[int], settled: Step | None
) -> None:
    assert found(rule, *steps) == [(text, evidence)]
    assert found(rule) == []
    if settled is not None:
        assert found(rule, *steps, settled) == []


def test_every_rule_is_tried_here() -> None:
    assert {case[0] for case in FINDINGS} | {"where_it_stands"} == set(RULES)


def test_what_concerns_another_service_or_another_request_settles_nothing() -> None:
    steps: list[Step] = [
        ("deployment_started", {"service": "api"}),
        ("deployment_failed", {"service": "web"}),
        ("pr_created", {"pr_url": "https://forge/1"}),
        ("pr_created", {"pr_url": "https://forge/2"}),
        ("deployment_completed", {"service": "db"}),
        ("pr_merged", {"pr_url": "https://forge/2"}),
    ]

    assert [(s.rule, s.evidence) for s in suggestions(told(*steps))] == [
        ("deployment_failed", [3]),
        ("deployment_unfinished", [2]),
        ("pull_request_open", [4]),
    ]


def test_a_new_attempt_takes_the_place_of_a_failed_deployment() -> None:
    service = {"service": "api"}

    steps: list[Step] = [("deployment_failed", service), ("deployment_started", service)]
    assert [s.rule for s in suggestions(told(*steps))] == ["deployment_unfinished"]


def test_what_is_planned_waits_while_an_epic_is_in_progress() -> None:
    planned: Step = ("epic_planned", {"epic_id": "epic-004"})

    assert found("next_epic", ("epic_started", E3), planned) == []
    assert found("next_epic", planned, ("beat", {"current_epic": "epic-003"})) == []
    assert found("next_epic", ("epic_started", E3), planned, ("epic_completed", E3)) == [
        ("Planned next: epic epic-004.", [3])
    ]


def test_what_was_planned_and_is_done_is_planned_no_more() -> None:
    steps: list[Step] = [(f"epic_{what}", E3) for what in ("planned", "started", "completed")]

    assert found("next_epic", *steps) == []


def test_a_checkpoint_loaded_without_its_state_leaves_the_one_there_was() -> None:
    created: Step = ("checkpoint_created", {"label": "a", "state": {"step": 1}})

    instance = told(created, ("checkpoint_loaded", {"checkpoint_id": "elsewhere"}))
    assert instance.checkpoint is not None
    assert (instance.checkpoint.number, instance.checkpoint_state) == (2, {"step": 1})


def test_an_agent_s_long_words_are_cut_and_stay_on_one_line() -> None:
    [(text, _)] = found("where_it_stands", ("epic_failed", {**E3, "reason": "a\n" * 5_000}))

    assert "\n" not in text
    assert len(text) < QUOTED_CHARACTERS + 100


def test_however_much_is_open_only_the_latest_is_kept() -> None:
    opened: list[Step] = [
        ("pr_created", {"pr_url": f"https://forge/{number}"}) for number in range(MOST_KEPT + 10)
    ]
    done: list[Step] = [("epic_completed", {"epic_id": f"epic-{n}"}) for n in range(MOST_KEPT + 10)]

    instance = told(*opened, *done)
    assert instance.standing is not None
    assert next(iter(instance.standing.pull_requests)) == "https://forge/10"
    assert len(instance.standing.pull_requests) == MOST_KEPT
    assert list(instance.standing.epics) == [f"epic-{MOST_KEPT + 9}"]


def test_a_beat_keeps_no_work_and_needs_no_room_for_any() -> None:
    """Spec 16: a hundred thousand live instances fit into memory."""
    assert told(("beat", {"context_percent": 10}), ("command_logged", {})).standing is None


# A successor


def test_an_heir_knows_what_its_predecessor_knew_and_its_first_event_is_the_evidence() -> None:
    everything = [step for _, steps, _, _, _ in FINDINGS for step in steps if step[0] != "beat"]
    former = told(*S2_EXAMPLE, *everything, ("epic_completed", E3))
    heir = Instance(id=Instance.stream_id("odin-PS-000002"))
    heir.register(at(99), **former.inheritance())
    own = ("checkpoint", "commits_since_checkpoint", "context_nearly_full")

    inherited = suggestions(heir)
    assert [(text, rule) for text, rule, _ in inherited] == [
        (text, rule) for text, rule, _ in suggestions(former) if rule not in own
    ]
    assert all(evidence == [1] for _, _, evidence in inherited)
    assert former.standing is not None
    assert heir.standing is not former.standing
    heir.record_work(at(100), "pr_merged", {"pr_url": "https://forge/1"})
    assert "https://forge/1" in former.standing.pull_requests


def test_suggestions_survive_a_snapshot() -> None:
    everything = [step for _, steps, _, _, _ in FINDINGS for step in steps]
    instance = told(*everything)

    restored = Instance.from_state(instance.state())
    assert restored == instance
    assert suggestions(restored) == suggestions(instance)
