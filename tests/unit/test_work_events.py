"""The work-event catalogue: what each type needs, keeps and refuses (S2, spec 17)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from domain.aggregate import Json
from domain.instances.work_events import ALIASES, CATALOGUE

# Spec 3 and 17: each type's category and required fields.
SPECIFIED: dict[str, dict[str, list[str]]] = {
    "epic": {
        "epic_started": ["epic_id"],
        "epic_completed": ["epic_id"],
        "epic_failed": ["epic_id"],
    },
    "testing": {
        "test_started": ["epic_id"],
        "test_passed": ["epic_id"],
        "test_failed": ["epic_id"],
        "validation_passed": [],
        "validation_failed": [],
    },
    "git": {
        "commit_created": ["commit"],
        "pr_created": ["pr_url"],
        "pr_merged": ["pr_url"],
    },
    "deployment": {
        "deployment_started": ["service"],
        "deployment_completed": ["service"],
        "deployment_failed": ["service"],
    },
    "work_state": {
        "context_window_updated": ["context_percent"],
        "checkpoint_created": ["label", "state"],
        "checkpoint_loaded": ["checkpoint_id"],
        "command_logged": ["command"],
    },
    "planning": {
        "epic_planned": ["epic_id"],
        "feature_requested": ["feature_name"],
        "task_spawned": ["task_name"],
        "prd_updated": ["epic_id"],
    },
}
REQUIRED = {name: fields for types in SPECIFIED.values() for name, fields in types.items()}
EACH_REQUIRED = [(name, field) for name, fields in REQUIRED.items() for field in fields]
VALUES: Json = {"context_percent": 73.5, "state": {"step": 4}}

S2_SAMPLES: dict[str, Json] = {
    "epic_started": {
        "epic_id": "epic-003",
        "feature_name": "authentication-oauth",
        "estimated_hours": 60,
        "spawned_by": "plan-feature-interactive",
        "acceptance_criteria_count": 12,
    },
    "epic_completed": {
        "epic_id": "epic-003",
        "duration_hours": 58.5,
        "files_changed": 23,
        "tests_passed": 45,
        "pr_url": "https://github.com/project/pull/123",
        "validation_confidence": 0.96,
        "issues_encountered": ["cors_headers", "token_refresh"],
    },
    "test_passed": {
        "epic_id": "epic-003",
        "test_type": "unit|integration|e2e",
        "passed_count": 45,
        "failed_count": 0,
        "coverage_percent": 87,
        "duration_seconds": 342,
    },
    "deployment_completed": {
        "service": "supervisor-mcp",
        "port": 8081,
        "health_status": "healthy",
        "response_time_ms": 12,
        "git_commit": "a1b2c3d",
        "docker_image": "supervisor:latest",
    },
}


def minimal(event_type: str) -> Json:
    """A payload with the required fields alone."""
    return {field: VALUES.get(field, "epic-003") for field in REQUIRED[event_type]}


def stored(event_type: str, data: Json) -> Json:
    """What is stored of a payload."""
    kept: Json = CATALOGUE[event_type].model_validate(data).model_dump(exclude_unset=True)
    return kept


def refused(event_type: str, data: Any) -> list[tuple[Any, ...]]:
    """The places at which a payload is refused."""
    with pytest.raises(ValidationError) as refusal:
        CATALOGUE[event_type].model_validate(data)
    return [error["loc"] for error in refusal.value.errors()]


def test_the_catalogue_is_the_one_that_was_specified() -> None:
    assert set(CATALOGUE) == set(REQUIRED)
    for category, types in SPECIFIED.items():
        assert {name for name, cls in CATALOGUE.items() if cls.category == category} == set(types)


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_each_type_says_what_it_needs_and_what_it_means(event_type: str) -> None:
    cls = CATALOGUE[event_type]

    assert cls.required_fields() == REQUIRED[event_type]
    assert set(cls.optional_fields()) == set(cls.model_fields) - set(REQUIRED[event_type])
    assert cls.about().endswith(".")


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_the_required_fields_suffice(event_type: str) -> None:
    assert stored(event_type, minimal(event_type)) == minimal(event_type)


@pytest.mark.parametrize(("event_type", "field"), EACH_REQUIRED)
def test_without_a_required_field_it_is_refused(event_type: str, field: str) -> None:
    data = minimal(event_type)
    del data[field]

    assert refused(event_type, data) == [(field,)]


@pytest.mark.parametrize(("event_type", "field"), EACH_REQUIRED)
def test_null_is_no_value_for_a_required_field(event_type: str, field: str) -> None:
    assert {loc[0] for loc in refused(event_type, minimal(event_type) | {field: None})} == {field}


@pytest.mark.parametrize(
    ("event_type", "field"), [(t, f) for t, f in EACH_REQUIRED if f not in VALUES]
)
def test_a_blank_text_is_no_value_either(event_type: str, field: str) -> None:
    for blank in ("", "  ", "\n"):
        assert refused(event_type, minimal(event_type) | {field: blank}) == [(field,)]


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_unknown_fields_are_kept(event_type: str) -> None:
    extra = {"mood": "good", "deep": {"er": [1, None, {"x": True}]}, "event_type": "odd"}

    assert stored(event_type, minimal(event_type) | extra) == minimal(event_type) | extra


@pytest.mark.parametrize("event_type", CATALOGUE)
@pytest.mark.parametrize("data", [None, [], "text", 7])
def test_a_payload_is_an_object(event_type: str, data: object) -> None:
    assert refused(event_type, data) == [()]


@pytest.mark.parametrize("event_type", S2_SAMPLES)
def test_the_samples_of_the_specification_are_stored_to_the_letter(event_type: str) -> None:
    """S2 6-9."""
    kept = stored(event_type, S2_SAMPLES[event_type])

    assert kept == S2_SAMPLES[event_type]
    # An integer stays one: 87 is not 87.0.
    assert repr(kept) == repr({name: S2_SAMPLES[event_type][name] for name in kept})
    assert set(S2_SAMPLES[event_type]) <= set(CATALOGUE[event_type].model_fields)


@pytest.mark.parametrize("event_type", ["test_passed", "test_failed"])
def test_both_spellings_of_a_test_s_figures_are_stored_under_the_second(event_type: str) -> None:
    """S2 5 says test_count and coverage, S2 8 passed_count and coverage_percent (spec 3)."""
    assert stored(event_type, {"epic_id": "e", "test_count": 45, "coverage": 87}) == {
        "epic_id": "e",
        "passed_count": 45,
        "coverage_percent": 87,
    }


def test_where_both_spellings_are_given_neither_is_lost() -> None:
    data = {"epic_id": "e", "test_count": 9, "passed_count": 8}

    assert stored("test_passed", data) == data


def test_a_wrong_value_under_the_first_spelling_is_refused_too() -> None:
    places = refused("test_passed", {"epic_id": "e", "coverage": 101})

    assert {place[0] for place in places} == {"coverage_percent"}


@pytest.mark.parametrize(
    ("event_type", "field", "wrong"),
    [
        ("context_window_updated", "context_percent", -1),
        ("context_window_updated", "context_percent", 100.5),
        ("context_window_updated", "context_percent", "50"),
        ("context_window_updated", "context_percent", True),
        ("context_window_updated", "tokens_used", 1.5),
        ("epic_completed", "files_changed", -1),
        ("epic_completed", "files_changed", True),
        ("epic_completed", "files_changed", [1]),
        ("epic_completed", "validation_confidence", "high"),
        ("epic_completed", "issues_encountered", 7),
        ("epic_started", "estimated_hours", "60"),
        ("test_failed", "failures", {"a": 1}),
        ("commit_created", "commit", 7),
        ("deployment_completed", "port", "8081"),
        ("checkpoint_created", "state", []),
        ("checkpoint_created", "state", "text"),
        ("checkpoint_created", "label", 7),
        ("command_logged", "exit_code", True),
        ("command_logged", "exit_code", "0"),
        ("prd_updated", "changes", {"all": True}),
        ("prd_updated", "version", True),
    ],
)
def test_a_value_of_another_kind_is_refused(event_type: str, field: str, wrong: object) -> None:
    assert {loc[0] for loc in refused(event_type, minimal(event_type) | {field: wrong})} == {field}


@pytest.mark.parametrize(
    ("event_type", "field", "value"),
    [
        ("prd_updated", "version", 2),
        ("prd_updated", "version", "1.1"),
        ("prd_updated", "changes", "all of it"),
        ("commit_created", "files_changed", ["a.py", "b.py"]),
        ("epic_failed", "issues_encountered", [{"kind": "cors"}]),
        ("validation_passed", "confidence", 96),
        ("task_spawned", "task_id", 7),
    ],
)
def test_what_only_adds_to_an_event_may_be_told_in_several_ways(
    event_type: str, field: str, value: object
) -> None:
    assert stored(event_type, minimal(event_type) | {field: value})[field] == value


def test_a_process_that_was_killed_has_a_negative_exit_code() -> None:
    assert stored("command_logged", {"command": "make", "exit_code": -9})["exit_code"] == -9


def test_aliases_stand_for_types_of_the_catalogue_and_are_none_themselves() -> None:
    assert ALIASES == {"deployment_done": "deployment_completed"}
    assert set(ALIASES.values()) <= set(CATALOGUE)
    assert not set(ALIASES) & set(CATALOGUE)
