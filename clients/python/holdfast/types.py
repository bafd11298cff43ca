"""What the service answers, as typed dictionaries. Times are ISO 8601 in UTC."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

Json = dict[str, Any]
# A moment: replies.py sees to it that it can be read.
Time = Annotated[str, "a moment"]

SessionStatus = Literal["active", "paused", "stalled", "completed", "failed"]
TaskStatus = Literal["pending", "in_progress", "completed", "failed", "blocked"]
MachineStatus = Literal["online", "offline", "maintenance"]
InstanceStatus = Literal["active", "stale", "closed"]
InstanceHealth = Literal["healthy", "degraded", "stale", "closed"]
ItemStatus = Literal["open", "claimed", "completed", "cancelled"]
Outcome = Literal["completed", "failed", "recovered", "superseded"]
Category = Literal["instance", "epic", "testing", "git", "deployment", "work_state", "planning"]
HolderKind = Literal["session", "instance"]
Scope = Literal["global", "project", "orchestration"]
Activity = Literal["working", "waiting_for_human", "idle"]


class Session(TypedDict):
    """One orchestrated run of a project on a machine."""

    session_id: str
    project_id: str
    machine_id: str | None
    docker_slot: int | None
    status: SessionStatus
    last_heartbeat: Time
    unknown_since: Time | None
    current_task_id: str | None
    started_at: Time
    completed_at: Time | None
    metadata: Json
    instance_id: str | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    stall_threshold_ms: int | None
    outcome: Outcome | None
    recovered_from: str | None
    recovered_to: str | None
    superseded_by: str | None
    supervisor: str | None
    supervisor_fence: int | None
    supervisor_hostname: str | None
    supervised_since: Time | None
    archived: bool
    archived_at: Time | None
    created_at: Time
    updated_at: Time


class TakenUpSession(Session, total=False):
    """A session with its new supervisor's fence."""

    # Only if the session's instance was taken up too.
    instance_supervisor_fence: int


class RecoveredSession(Session, total=False):
    """A recovery's new session."""

    # What it could not have back of the items that the original released.
    lost_items: list[LostItem]


class LostItem(TypedDict):
    """A work item that a recovery could not bring back."""

    item_id: str
    status: Literal["open", "claimed", "completed", "cancelled", "removed"]
    holder: str | None
    holder_kind: HolderKind | None
    fence: int


class Page(TypedDict):
    """What every list has beside its items."""

    total_count: int
    limit: int
    offset: int
    has_more: bool
    # What the next page is asked for with; None at the end.
    next_cursor: str | None


class SessionPage(Page):
    """Sessions, newest first."""

    sessions: list[Session]


class Task(TypedDict):
    """A unit of a session's progress."""

    task_id: str
    session_id: str
    project_id: str
    github_issue_id: str | None
    task_name: str
    status: TaskStatus
    started_at: Time | None
    completed_at: Time | None
    error_message: str | None
    metadata: Json
    carried_from: str | None
    created_at: Time
    updated_at: Time


class TaskPage(Page):
    """Tasks, oldest first."""

    tasks: list[Task]


class Machine(TypedDict):
    """A host with docker slots."""

    machine_id: str
    hostname: str
    docker_slots: list[int]
    active_sessions: list[str]
    status: MachineStatus
    last_heartbeat: Time
    metadata: Json
    created_at: Time
    updated_at: Time


class MachinePage(Page):
    """Machines, oldest first."""

    machines: list[Machine]


class _Told(TypedDict, total=False):
    # Unless it is healthy.
    health_reasons: list[str]


class Instance(_Told):
    """A registered agent process."""

    instance_id: str
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
    health: InstanceHealth
    context_percent: float | None
    current_epic: str | None
    last_epic: str | None
    last_heartbeat: Time
    unknown_since: Time | None
    age_seconds: float
    uptime_seconds: float
    metrics: Json | None
    activity: Activity | None
    activity_reason: str | None
    git: Json | None
    native_session_id: str | None
    restart_policy: Json | None
    restarts: int
    crash_looping: bool
    predecessor: str | None
    successor: str | None
    lost_work: Json | None
    supervisor: str | None
    supervisor_fence: int | None
    supervisor_hostname: str | None
    supervised_since: Time | None
    created_at: Time
    updated_at: Time
    closed_at: Time | None


class ClosedInstance(Instance):
    """The closed instance, and what was closed below it."""

    cascaded: list[str]


class InstancePage(Page):
    """Instances by project, the latest heartbeat first."""

    instances: list[Instance]
    active_count: int
    stale_count: int


class _Why(TypedDict, total=False):
    # Of an item that was cancelled.
    reason: str


class LostClaim(_Why):
    """A claim that another took over; told once, with the next heartbeat.

    Nobody took it (``taken_by`` is ``None``) if the item was cancelled.
    """

    item_id: str
    fence: int
    taken_by: str | None
    at: Time


class _SessionLosses(TypedDict, total=False):
    lost_claims: list[LostClaim]


class SessionBeat(Session, _SessionLosses):
    """The session after a heartbeat, and the gap before it."""

    age_seconds: float
    stale: bool


class _InstanceLosses(TypedDict, total=False):
    lost_claims: list[LostClaim]
    warnings: list[str]
    lost_work: Json


class InstanceBeat(_InstanceLosses):
    """The gap before a heartbeat, and the status after it."""

    instance_id: str
    status: InstanceStatus
    last_heartbeat: Time
    age_seconds: float
    stale: bool
    context_percent: float | None
    current_epic: str | None


class Beats(TypedDict):
    """The results of many heartbeats, in the order of the request."""

    results: list[Json]
    accepted: int
    rejected: int


class _OfInstance(TypedDict, total=False):
    # Only in an instance's stream.
    instance_id: str


class Event(_OfInstance):
    """Something that happened, for good."""

    event_id: str
    stream_id: str
    event_type: str
    sequence_num: int
    position: int
    timestamp: Time
    event_data: Json
    metadata: Json


class EventPage(Page):
    """Events of one stream."""

    events: list[Event]


class _More(TypedDict, total=False):
    has_more: bool


class FeedPage(_More):
    """Events of the whole namespace after a position."""

    events: list[Event]
    next_position: int


class Emitted(TypedDict):
    """An event that was recorded."""

    success: bool
    event_id: str
    sequence_num: int
    timestamp: Time


class Checkpoint(TypedDict):
    """A state that was kept."""

    checkpoint_id: str
    instance_id: str
    label: str
    sequence_num: int
    created_at: Time


class _Difference(TypedDict, total=False):
    # Only where it was asked for.
    diff: Json


class Replay(_Difference):
    """A stream's state at one of its events."""

    success: bool
    stream_id: str
    final_state: Json
    events_replayed: int
    duration_ms: float


class _ClaimNow(TypedDict, total=False):
    # Earlier services did not answer these to whoever made the claim.
    title: str | None
    track: str | None
    priority: int
    status: ItemStatus
    claim_duration_minutes: float | None
    heartbeat_age_seconds: float | None
    heartbeat_age_human: str | None
    stale: bool
    unknown_since: Time | None
    seconds_until_takeover: float | None
    # Only of a claim that was just made: who had it before.
    taken_from: str


class Claim(_ClaimNow):
    """Exclusive ownership of a work item; ``fence`` rises with every new holder."""

    item_id: str
    holder: str | None
    holder_kind: HolderKind | None
    session_id: str | None
    instance_id: str | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    fence: int
    claimed_at: Time | None


class ClaimPage(Page):
    """What is held now."""

    claims: list[Claim]


class WorkItem(TypedDict):
    """An item of the queue, with who works on it."""

    item_id: str
    title: str | None
    track: str | None
    priority: int
    depends_on: list[str]
    blocked_by: list[str]
    status: ItemStatus
    is_working_on: bool
    active_session_id: str | None
    active_instance_id: str | None
    holder: str | None
    holder_kind: HolderKind | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    fence: int | None
    claimed_at: Time | None
    claim_duration_minutes: float | None
    heartbeat_age_seconds: float | None
    heartbeat_age_human: str | None
    stale: bool
    unknown_since: Time | None
    last_machine_id: str | None
    completed_at: Time | None
    completed_by: str | None
    open_dependencies: list[str]
    cancelled_at: Time | None
    status_reason: str | None
    created_at: Time
    updated_at: Time


class WorkItemPage(Page):
    """The queue, by priority."""

    work_items: list[WorkItem]


class Health(TypedDict):
    """That the service serves."""

    status: str
    timestamp: Time


class About(TypedDict):
    """Whose description it is."""

    version: str


class Description(TypedDict):
    """The OpenAPI document."""

    info: About


class Counts(TypedDict):
    """How many sessions there are of each status."""

    total_sessions: int
    active_sessions: int
    paused_sessions: int
    stalled_sessions: int
    failed_sessions: int
    completed_sessions: int
    last_updated: Time


class HeldClaim(TypedDict):
    """A work item that a session or an instance holds."""

    item_id: str
    fence: int


class ActiveSession(TypedDict):
    """A live session, how long it has been silent and what it holds."""

    session_id: str
    project_id: str
    machine_id: str | None
    docker_slot: int | None
    status: SessionStatus
    last_heartbeat: Time
    unknown_since: Time | None
    current_task_id: str | None
    started_at: Time
    metadata: Json
    instance_id: str | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    held_items: list[str]
    heartbeat_age_seconds: float
    heartbeat_age_minutes: float
    heartbeat_age_human: str
    seconds_until_stale: float
    computed_status: Literal["active", "stale", "idle", "released"]
    claims: list[HeldClaim]
    claimed_at: Time | None
    claim_duration_minutes: float | None


class ActiveSessions(Page):
    """Every live session."""

    sessions: list[ActiveSession]


class StalledSession(TypedDict):
    """A session that went silent."""

    session_id: str
    project_id: str
    machine_id: str | None
    last_heartbeat: Time
    time_since_heartbeat_ms: int


class StalledSessions(_More):
    """Every stalled session."""

    stalled_sessions: list[StalledSession]
    stall_threshold_ms: int


class _Match(TypedDict):
    match: Literal["exact", "prefix"]


class Found(_Match, total=False):
    """Which instance is meant: the ``instance``, or the ``matches``."""

    instance: Instance
    matches: list[Instance]


class Node(Instance):
    """An instance in the forest."""

    orphan: bool
    children: list[Node]


class Forest(_More):
    """All open instances, as trees."""

    roots: list[Node]
    orphans: list[str]
    total_count: int


class Suggestion(TypedDict):
    """What to do next, and the numbers of the events that show it."""

    text: str
    rule: str
    evidence: list[int]


class KeptState(TypedDict):
    """The last checkpoint."""

    checkpoint_id: str
    label: str | None
    sequence_num: int
    state: Any
    from_instance_id: str | None


class Tests(TypedDict):
    """What is known of an epic's tests; what was not told is None."""

    passed: int | None
    failed: int | None
    total: int | None
    evidence: list[int]


class Resume(TypedDict):
    """What it takes to carry on from an instance."""

    instance_id: str
    instance: Instance
    predecessor: str | None
    successor: str | None
    stale_warning: str | None
    last_epic: str | None
    last_epic_status: Literal["started", "completed", "failed"] | None
    current_epic: str | None
    tests: Tests | None
    suggestions: list[Suggestion]
    checkpoint: KeptState | None
    git: Json | None
    held_claims: list[HeldClaim]
    resume_chain: list[str]
    brief: str
    evidence_stream: str
    last_sequence_num: int


class EventType(TypedDict):
    """A type of the catalogue."""

    type: str
    description: str
    category: Category
    required_fields: list[str]
    optional_fields: list[str]


class EventTypes(TypedDict):
    """The catalogue."""

    event_types: list[EventType]


class Owner(TypedDict):
    """Who holds an item, as a refusal tells (S3 FR-2)."""

    item_id: str
    claimed_by: str
    holder_kind: str
    heartbeat_age_seconds: float
    heartbeat_age_human: str
    claim_duration_minutes: float
    hostname: str | None
    tty: str | None
    codebase: str | None
