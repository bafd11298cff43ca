"""Replies about sessions and their recovery (S4 2.1, 2.2, 2.4, 3.3)."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from domain.claims.claim import HolderKind
from domain.claims.work_item import WorkItemStatus
from domain.sessions.session import SessionStatus
from interfaces.replies.base import HeldClaim, Json, LostClaim, Page, Time
from interfaces.replies.tasks import Task

Outcome = Literal["completed", "failed", "recovered", "superseded"]


class Session(TypedDict):
    """One orchestrated run of a project on a machine."""

    session_id: str
    project_id: str
    machine_id: str | None
    docker_slot: int | None
    status: SessionStatus
    last_heartbeat: Time
    # Since when the service cannot say whether it lives, because it was away itself.
    unknown_since: Time | None
    current_task_id: str | None
    started_at: Time
    completed_at: Time | None
    metadata: Json
    instance_id: str | None
    hostname: str | None
    tty: str | None
    codebase: str | None
    # Its own; null if the service's setting counts.
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


class SessionPage(Page):
    """Sessions, newest first."""

    sessions: list[Session]


class SessionBeat(Session):
    """The session after a heartbeat, and how long it had been silent before it."""

    age_seconds: float
    stale: bool
    lost_claims: NotRequired[list[LostClaim]]


class TakenUpSession(Session):
    """A session with its new supervisor's fence, and its instance's if that was taken up too."""

    instance_supervisor_fence: NotRequired[int]


class LostItem(TypedDict):
    """A work item that a recovery could not bring back: another holds it, or it is over."""

    item_id: str
    status: WorkItemStatus | Literal["removed"]
    holder: str | None
    holder_kind: HolderKind | None
    fence: int


class RecoveredSession(Session):
    """A recovery's new session."""

    lost_items: NotRequired[list[LostItem]]


class SessionCounts(TypedDict):
    """How many sessions there are of each status."""

    total_sessions: int
    active_sessions: int
    paused_sessions: int
    stalled_sessions: int
    failed_sessions: int
    completed_sessions: int
    last_updated: Time


class ActiveSession(TypedDict):
    """A live session with its heartbeat's age and the work items that it holds (S3 FR-5)."""

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
    # Of the work item that it has held for longest.
    claimed_at: Time | None
    claim_duration_minutes: float | None


class ActiveSessions(Page):
    """Every live session, the latest heartbeat first."""

    sessions: list[ActiveSession]


class StalledSession(TypedDict):
    """A session that has been silent for longer than its threshold."""

    session_id: str
    project_id: str
    machine_id: str | None
    last_heartbeat: Time
    time_since_heartbeat_ms: int


class StalledSessions(TypedDict):
    """Every stalled session, the longest silent first."""

    stalled_sessions: list[StalledSession]
    stall_threshold_ms: int
    has_more: NotRequired[bool]


class SessionHealth(TypedDict):
    """Whether a session is alive."""

    session_id: str
    is_healthy: bool
    status: SessionStatus
    last_heartbeat: Time
    time_since_heartbeat_ms: int
    is_stalled: bool
    stall_threshold_ms: int
    unknown_since: NotRequired[Time]


class RecoveryState(TypedDict):
    """What it takes to carry on from a session."""

    session_id: str
    project_id: str
    status: SessionStatus
    last_successful_task: Task | None
    failed_tasks: list[Task]
    in_progress_tasks: list[Task]
    pending_tasks: list[Task]
    blocked_tasks: list[Task]
    held_claims: list[HeldClaim]
    # The work items that it released when it failed.
    released_items: list[str]
    last_heartbeat: Time
    # As the session's metadata has it.
    checkpoint: Any
    metadata: Json
    recovered_to: str | None
    # A paragraph for a resuming agent; numbers in brackets are the stream's events.
    brief: str
    unknown_since: NotRequired[Time]


class Detected(TypedDict):
    """How many stalls were recorded, and how many runs were ended that others carry on."""

    stalled: int
    instances_stale: int
    ended: int
    duration_ms: float


class CleanedUp(TypedDict):
    """How much a clean-up deleted."""

    deleted_sessions: int
    deleted_tasks: int
