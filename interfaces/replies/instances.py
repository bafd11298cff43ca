"""Replies about instances and the registry (S0, S1, spec 7)."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from domain.instances.hierarchy import Scope
from domain.instances.instance import Health, InstanceStatus, RestartRule
from domain.instances.instance_events import Activity, LeftBecause
from domain.instances.standing import EpicStatus
from interfaces.replies.base import HeldClaim, Json, LostClaim, Page, Time


class MetricsReport(TypedDict, total=False):
    """What an instance reported of how it is doing (S1)."""

    active_tasks: int
    queue_depth: int
    response_time_ms: float
    error_rate: float


class GitReport(TypedDict, total=False):
    """Where an instance's working copy stands."""

    branch: str
    head: str
    dirty_files: int
    unpushed_commits: int


class StoredRestartPolicy(TypedDict):
    """Whether and how often a silent instance is to be started again."""

    policy: RestartRule
    max_restarts: int
    backoff_seconds: float


class LostWork(TypedDict):
    """What was taken from an instance that has nothing else to work on."""

    reason: LeftBecause | Literal["item_taken_over"]
    session_id: str | None
    item_id: str | None
    by: str | None
    at: Time


class Instance(TypedDict):
    """A registered agent process."""

    instance_id: str
    # The slug; ``project_name`` is the name as it was given.
    project: str
    project_name: str
    type: str
    instance_type: str
    name: str | None
    scope: Scope
    parent_id: str | None
    tags: list[str]
    hostname: str | None
    tty: str | None
    codebase: str | None
    status: InstanceStatus
    health: Health
    # There unless it is healthy.
    health_reasons: NotRequired[list[str]]
    context_percent: float | None
    current_epic: str | None
    last_epic: str | None
    last_heartbeat: Time
    # Since when the service cannot say whether it lives, because it was away itself.
    unknown_since: Time | None
    age_seconds: float
    uptime_seconds: float
    metrics: MetricsReport | None
    activity: Activity | None
    activity_reason: str | None
    git: GitReport | None
    native_session_id: str | None
    restart_policy: StoredRestartPolicy | None
    restarts: int
    crash_looping: bool
    predecessor: str | None
    successor: str | None
    lost_work: LostWork | None
    supervisor: str | None
    supervisor_fence: int | None
    supervisor_hostname: str | None
    supervised_since: Time | None
    created_at: Time
    updated_at: Time
    closed_at: Time | None


class ClosedInstance(Instance):
    """The closed instance, and the ids of those that were closed below it."""

    cascaded: list[str]


class InstancePage(Page):
    """Instances by project, the latest heartbeat first."""

    instances: list[Instance]
    active_count: int
    stale_count: int


class DiscoveredPage(Page):
    """Instances that meet every criterion."""

    instances: list[Instance]


class FoundInstance(TypedDict):
    """The ``instance`` that is meant, or the ``matches`` of a leading part."""

    match: Literal["exact", "prefix"]
    instance: NotRequired[Instance]
    matches: NotRequired[list[Instance]]


class InstanceBeat(TypedDict):
    """How long an instance had been silent before a heartbeat, and its status after it."""

    instance_id: str
    status: InstanceStatus
    last_heartbeat: Time
    age_seconds: float
    stale: bool
    context_percent: float | None
    current_epic: str | None
    lost_claims: NotRequired[list[LostClaim]]
    warnings: NotRequired[list[str]]
    lost_work: NotRequired[LostWork]


class RefusedBeat(TypedDict):
    """Why one of many heartbeats was refused."""

    code: str
    message: str
    details: NotRequired[Json]
    field: NotRequired[str]


class BeatResult(TypedDict):
    """The result of one of many heartbeats."""

    # As it was sent.
    id: Any
    ok: bool
    status: NotRequired[str]
    lost_claims: NotRequired[list[LostClaim]]
    warnings: NotRequired[list[str]]
    lost_work: NotRequired[LostWork]
    error: NotRequired[RefusedBeat]


class Beats(TypedDict):
    """The results of many heartbeats, in the order of the request."""

    results: list[BeatResult]
    accepted: int
    rejected: int


class Tests(TypedDict):
    """What is known of an epic's tests; null is what was not told."""

    passed: int | None
    failed: int | None
    total: int | None
    evidence: list[int]


class KeptState(TypedDict):
    """The last checkpoint."""

    checkpoint_id: str
    label: str | None
    state: Any
    sequence_num: int
    # The instance that made it, if that was a predecessor.
    from_instance_id: str | None


class Suggestion(TypedDict):
    """What to do next, by which rule, and the numbers of the events that show it."""

    text: str
    rule: str
    evidence: list[int]


class ResumeBrief(TypedDict):
    """What it takes to carry on from an instance."""

    instance_id: str
    instance: Instance
    predecessor: str | None
    successor: str | None
    # From the first instance on.
    resume_chain: list[str]
    stale_warning: str | None
    last_epic: str | None
    last_epic_status: EpicStatus | None
    current_epic: str | None
    tests: Tests | None
    checkpoint: KeptState | None
    git: GitReport | None
    held_claims: list[HeldClaim]
    suggestions: list[Suggestion]
    # A paragraph for a resuming agent; numbers in brackets are the stream's events.
    brief: str
    evidence_stream: str
    last_sequence_num: int


class Node(Instance):
    """An instance in the forest, with those below it."""

    orphan: bool
    children: list[Node]


class Forest(TypedDict):
    """All open instances as trees; orphans stand at the root."""

    roots: list[Node]
    orphans: list[str]
    total_count: int
    has_more: NotRequired[bool]


class FiveMetrics(TypedDict):
    """S1's metrics: four that an instance reports, and its uptime in seconds."""

    active_tasks: int | None
    queue_depth: int | None
    response_time_ms: float | None
    error_rate: float | None
    uptime: float


class InstanceHealth(TypedDict):
    """How one open instance is, and why."""

    instance_id: str
    project: str
    scope: Scope
    status: InstanceStatus
    health: Health
    health_reasons: NotRequired[list[str]]
    last_heartbeat: Time
    unknown_since: Time | None
    age_seconds: float
    uptime_seconds: float
    activity: Activity | None
    activity_reason: str | None
    metrics: FiveMetrics


class HealthCounts(TypedDict):
    """How many open instances are how."""

    healthy: int
    degraded: int
    stale: int


class RegistryHealth(TypedDict):
    """How all open instances are."""

    status: Literal["healthy", "degraded"]
    counts: HealthCounts
    instances: list[InstanceHealth]
    total_count: int
    has_more: NotRequired[bool]
