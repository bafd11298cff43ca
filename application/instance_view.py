"""Instances as clients see them."""

from __future__ import annotations

from datetime import datetime

from domain import liveness
from domain.aggregate import Json
from domain.instances.instance import Instance, restarts_of
from domain.liveness import Serving


def view(instance: Instance, now: datetime, stale_seconds: float, serving: Serving) -> Json:
    """An instance at a given time: past the threshold it is ``stale``, recorded or not."""
    status = instance.status_at(now, stale_seconds, serving)
    health, reasons = instance.health_at(now, stale_seconds, serving)
    ended = instance.closed_at or now
    value: Json = {
        "instance_id": instance.key,
        "project": instance.project,
        "project_name": instance.project_name,
        "type": instance.instance_type,
        "instance_type": instance.instance_type,
        "name": instance.name,
        "scope": instance.scope,
        "parent_id": instance.parent_id,
        "tags": instance.tags,
        "hostname": instance.hostname,
        "tty": instance.tty,
        "codebase": instance.codebase,
        "status": status,
        "health": health,
        "context_percent": instance.context_percent,
        "current_epic": instance.current_epic,
        "last_epic": instance.last_epic,
        "last_heartbeat": instance.last_heartbeat,
        "unknown_since": instance.unheard_since(serving) if status == "active" else None,
        "age_seconds": instance.gap_seconds(now),
        "uptime_seconds": liveness.age_seconds(instance.created_at or now, ended),
        "metrics": instance.metrics,
        "activity": instance.activity,
        "activity_reason": instance.activity_reason,
        "git": instance.git,
        "native_session_id": instance.native_session_id,
        "restart_policy": instance.restart_policy,
        "restarts": restarts_of(instance.restarts, instance.told_restarts, instance.supervisor),
        "crash_looping": instance.crash_looping,
        "predecessor": instance.predecessor,
        "successor": instance.successor,
        "lost_work": instance.lost_work,
        "supervisor": instance.supervisor,
        "supervisor_fence": instance.supervisor_fence,
        "supervisor_hostname": instance.supervisor_hostname,
        "supervised_since": instance.supervised_since,
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
        "closed_at": instance.closed_at,
    }
    if reasons:
        value["health_reasons"] = reasons
    return value
