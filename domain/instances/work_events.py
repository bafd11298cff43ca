"""The work-event catalogue: what agents record about their work, one class a type (S2).

To add a type, add a class: its name in snake case is the event's type, its docstring the
description, its fields the payload. Unknown extra fields are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Category = Literal["instance", "epic", "testing", "git", "deployment", "work_state", "planning"]


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _a_number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Text = Annotated[str, AfterValidator(_filled)]
# What something is known by: it stands in states and lists, which its length must not fill.
Key = Annotated[str, Field(max_length=10_000), AfterValidator(_filled)]
Integer = Annotated[int, BeforeValidator(_a_number)]
Count = Annotated[int, BeforeValidator(_a_number), Field(ge=0)]
Amount = Annotated[int | float, BeforeValidator(_a_number), Field(ge=0)]
Percent = Annotated[int | float, BeforeValidator(_a_number), Field(ge=0, le=100)]
# What is told in one text, in a list, or in objects of the teller's own.
Told = str | list[Any]


class WorkEvent(BaseModel):
    """The base of the catalogue's classes."""

    model_config = ConfigDict(extra="allow")

    category: ClassVar[Category]
    # Spellings that are accepted, and the names under which they are stored.
    spellings: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _spell(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            cls.spellings.get(k, k) if cls.spellings.get(k) not in data else k: v
            for k, v in data.items()
        }

    @classmethod
    def event_type(cls) -> str:
        """The class's name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def about(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    @classmethod
    def required_fields(cls) -> list[str]:
        """The fields without which the event is refused."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]

    @classmethod
    def optional_fields(cls) -> list[str]:
        """The fields that readers know, and that may be absent."""
        return [name for name, field in cls.model_fields.items() if not field.is_required()]


# Epics


class EpicEvent(WorkEvent):
    """An event of an epic."""

    category = "epic"
    epic_id: Key
    feature_name: str | None = None


class EpicStarted(EpicEvent):
    """Work on an epic began."""

    estimated_hours: Amount | None = None
    spawned_by: str | None = None
    acceptance_criteria_count: Count | None = None


class EpicCompleted(EpicEvent):
    """An epic was completed."""

    duration_hours: Amount | None = None
    files_changed: Count | list[str] | None = None
    tests_passed: Count | None = None
    pr_url: str | None = None
    validation_confidence: Amount | None = None
    issues_encountered: Told | None = None


class EpicFailed(EpicEvent):
    """An epic was given up or did not succeed."""

    reason: str | None = None
    duration_hours: Amount | None = None
    issues_encountered: Told | None = None


# Testing


class TestEvent(WorkEvent):
    """An event of a test run."""

    __test__: ClassVar[bool] = False  # not a test of ours, whatever its name
    category = "testing"
    spellings = {"test_count": "passed_count", "coverage": "coverage_percent"}
    epic_id: Key
    test_type: Annotated[str, Field(max_length=10_000)] | None = None


class TestStarted(TestEvent):
    """A test run began."""

    total_count: Count | None = None


class TestPassed(TestEvent):
    """A test run ended; all or some of its tests passed."""

    passed_count: Count | None = None
    failed_count: Count | None = None
    total_count: Count | None = None
    coverage_percent: Percent | None = None
    duration_seconds: Amount | None = None


class TestFailed(TestEvent):
    """A test run failed."""

    passed_count: Count | None = None
    failed_count: Count | None = None
    total_count: Count | None = None
    coverage_percent: Percent | None = None
    duration_seconds: Amount | None = None
    error_message: str | None = None
    failures: Told | None = None


class ValidationEvent(WorkEvent):
    """An event of a validation."""

    category = "testing"
    epic_id: Annotated[str, Field(max_length=10_000)] | None = None
    confidence: Amount | None = None
    validator: str | None = None


class ValidationPassed(ValidationEvent):
    """A validation of finished work succeeded."""

    checks_passed: Count | None = None


class ValidationFailed(ValidationEvent):
    """A validation of finished work found something."""

    reason: str | None = None
    issues: Told | None = None


# Git


class GitEvent(WorkEvent):
    """An event of a repository."""

    category = "git"
    branch: str | None = None
    epic_id: str | None = None


class CommitCreated(GitEvent):
    """A commit was made."""

    commit: Text
    message: str | None = None
    files_changed: Count | list[str] | None = None


class PrCreated(GitEvent):
    """A pull request was opened."""

    pr_url: Key
    title: str | None = None


class PrMerged(GitEvent):
    """A pull request was merged."""

    pr_url: Key
    commit: str | None = None


# Deployments


class DeploymentEvent(WorkEvent):
    """An event of a deployment."""

    category = "deployment"
    service: Key
    environment: str | None = None
    git_commit: str | None = None
    docker_image: str | None = None


class DeploymentStarted(DeploymentEvent):
    """A deployment began."""


class DeploymentCompleted(DeploymentEvent):
    """A deployment is done."""

    port: Count | None = None
    health_status: str | None = None
    response_time_ms: Amount | None = None


class DeploymentFailed(DeploymentEvent):
    """A deployment did not succeed."""

    error_message: str | None = None


# State of the work


class WorkStateEvent(WorkEvent):
    """An event of an agent's own state."""

    category = "work_state"


class ContextWindowUpdated(WorkStateEvent):
    """How full the agent's context window is."""

    context_percent: Percent
    tokens_used: Count | None = None


class CheckpointCreated(WorkStateEvent):
    """A state was saved from which a successor can carry on."""

    label: Text
    state: dict[str, Any]
    checkpoint_id: Annotated[str, Field(max_length=10_000)] | None = None


class CheckpointLoaded(WorkStateEvent):
    """An agent loaded a saved state."""

    checkpoint_id: Key
    from_instance_id: Annotated[str, Field(max_length=10_000)] | None = None
    label: str | None = None
    state: dict[str, Any] | None = None


class CommandLogged(WorkStateEvent):
    """An agent ran a command."""

    command: Text
    exit_code: Integer | None = None
    duration_ms: Amount | None = None


# Planning


class PlanningEvent(WorkEvent):
    """An event of planning."""

    category = "planning"


class EpicPlanned(PlanningEvent):
    """An epic was planned."""

    epic_id: Key
    feature_name: str | None = None
    estimated_hours: Amount | None = None


class FeatureRequested(PlanningEvent):
    """Someone asked for a feature."""

    feature_name: Text
    requested_by: str | None = None
    description: str | None = None


class TaskSpawned(PlanningEvent):
    """A task was given to another worker."""

    task_name: Text
    task_id: str | Integer | None = None
    epic_id: str | None = None
    assigned_to: str | None = None


class PrdUpdated(PlanningEvent):
    """A requirements document changed."""

    epic_id: Key
    version: str | Amount | None = None
    changes: Told | None = None


def _leaves(cls: type[WorkEvent]) -> list[type[WorkEvent]]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in _leaves(sub)] if below else [cls]


CATALOGUE: dict[str, type[WorkEvent]] = {cls.event_type(): cls for cls in _leaves(WorkEvent)}

# Accepted names, and the types that they are stored as.
ALIASES: dict[str, str] = {"deployment_done": "deployment_completed"}
