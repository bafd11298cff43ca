"""Instances and the registry (S0, S1, S2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

from holdfast.api.area import Area, part, said
from holdfast.errors import NotFound
from holdfast.secrets import masked_script
from holdfast.types import (
    Activity,
    Checkpoint,
    ClosedInstance,
    Emitted,
    EventPage,
    Instance,
    InstanceBeat,
    InstancePage,
    Json,
    Replay,
    Scope,
)


class Instances(Area):
    """``/api/instances``"""

    def register(
        self,
        project: str,
        instance_type: str = "PS",
        *,
        initial_context: float | Mapping[str, Any] | None = None,
        name: str | None = None,
        scope: Scope | None = None,
        parent_id: str | None = None,
        tags: Sequence[str] = (),
        hostname: str | None = None,
        tty: str | None = None,
        codebase: str | None = None,
        restart_policy: Mapping[str, Any] | None = None,
        supervisor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Instance:
        """Register an agent process; its ``instance_id`` is like ``odin-PS-8f4a2b``."""
        body = said(
            project=project,
            instance_type=instance_type,
            initial_context=initial_context,
            name=name,
            scope=scope,
            parent_id=parent_id,
            tags=[*tags] or None,
            hostname=hostname,
            tty=tty,
            codebase=codebase,
            restart_policy=restart_policy,
            supervisor=supervisor,
        )
        reply = self._write(
            "POST", "/api/instances", body, creates="instance", idempotency_key=idempotency_key
        )
        return cast(Instance, reply)

    def get(self, instance_id: str) -> Instance:
        """The instance with this id, or the only one whose id contains it."""
        found = self.find(instance_id)
        if "instance" in found:
            return cast(Instance, found["instance"])
        ids = ", ".join(match["instance_id"] for match in found["matches"])
        raise NotFound(f"{instance_id} may be any of {ids}", code="ambiguous", details=found)

    def find(self, reference: str) -> Json:
        """Find instances by id, or by the beginning of an id or of its hash (4 characters or more).

        ``{match: "exact", instance}`` or ``{match: "prefix", matches}``.
        """
        return cast(Json, self._get(_instance(reference)))

    def list(
        self,
        *,
        project: str | None = None,
        active_only: bool = False,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> InstancePage:
        """Instances by project, latest heartbeat first; ``active_only`` leaves out closed ones."""
        page = self._get(
            "/api/instances",
            project=project,
            active_only=active_only or None,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(InstancePage, page)

    def beat(
        self,
        instance_id: str,
        *,
        context_percent: float | None = None,
        current_epic: str | None = None,
        metrics: Mapping[str, float] | None = None,
        activity: Activity | None = None,
        activity_reason: str | None = None,
        git: Mapping[str, Any] | None = None,
        native_session_id: str | None = None,
        restarts: int | None = None,
        supervisor_fence: int | None = None,
    ) -> InstanceBeat:
        """Record a heartbeat. ``Conflict`` ``instance_closed`` if it is over."""
        body = said(
            context_percent=context_percent,
            current_epic=current_epic,
            metrics=metrics,
            activity=activity,
            activity_reason=activity_reason,
            git=git,
            native_session_id=native_session_id,
            restarts=restarts,
            supervisor_fence=supervisor_fence,
        )
        path = f"{_instance(instance_id)}/heartbeat"
        return cast(InstanceBeat, self._write("POST", path, body, replaces=f"beat {instance_id}"))

    def take_up(
        self,
        instance_id: str,
        supervisor: str,
        *,
        seen_fence: int | None = None,
        takeover: bool = False,
        hostname: str | None = None,
    ) -> Instance:
        """Become the instance's supervisor. The reply has the ``supervisor_fence`` to send.

        ``seen_fence`` is the fence that was read before, 0 for none. ``Conflict`` ``supervised`` if
        it has changed since, or if the present supervisor is not silent yet. ``takeover`` says that
        the present supervisor is gone although its last heartbeat is recent.
        """
        body = said(
            supervisor=supervisor,
            seen_fence=seen_fence,
            takeover=takeover or None,
            hostname=hostname,
        )
        path = f"{_instance(instance_id)}/take-up"
        return cast(Instance, self._write("POST", path, body, deferrable=False))

    def put_down(self, instance_id: str, supervisor_fence: int) -> Instance:
        """Stop supervising the instance, if no process was started for it."""
        path = f"{_instance(instance_id)}/put-down"
        return cast(Instance, self._write("POST", path, {"supervisor_fence": supervisor_fence}))

    def emit(
        self,
        instance_id: str,
        event_type: str,
        event_data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        supervisor_fence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Emitted:
        """Record an event of a type of the catalogue (``client.history.event_types()``).

        In the ``command`` of a ``command_logged`` event, what looks like a secret is masked (a best
        effort).
        """
        data = {**(event_data or {})}
        if event_type == "command_logged" and isinstance(data.get("command"), str):
            data["command"] = masked_script(data["command"])
        body = said(
            event_type=event_type,
            event_data=data,
            metadata=metadata,
            supervisor_fence=supervisor_fence,
        )
        reply = self._write(
            "POST",
            f"{_instance(instance_id)}/events",
            body,
            dated=True,
            idempotency_key=idempotency_key,
        )
        return cast(Emitted, reply)

    def checkpoint(
        self,
        instance_id: str,
        label: str,
        state: Mapping[str, Any],
        *,
        supervisor_fence: int | None = None,
    ) -> Checkpoint:
        """Save a state from which the work can be resumed."""
        path = f"{_instance(instance_id)}/checkpoints"
        body = said(label=label, state=state, supervisor_fence=supervisor_fence)
        return cast(Checkpoint, self._write("POST", path, body, creates="checkpoint"))

    def set_parent(self, instance_id: str, parent_id: str | None) -> Instance:
        """Set its parent; ``None`` removes it."""
        path = f"{_instance(instance_id)}/parent"
        return cast(Instance, self._write("PUT", path, {"parent_id": parent_id}))

    def close(
        self,
        instance_id: str,
        *,
        cascade: bool = False,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> ClosedInstance:
        """Close the instance; with ``cascade`` also all instances below it."""
        reply = self._write(
            "POST",
            f"{_instance(instance_id)}/close",
            said(cascade=cascade or None, reason=reason),
            idempotency_key=idempotency_key,
        )
        return cast(ClosedInstance, reply)

    def events(
        self,
        instance_id: str,
        *,
        event_type: str | Sequence[str] | None = None,
        start_date: datetime | str | None = None,
        end_date: datetime | str | None = None,
        keyword: str | None = None,
        order: Literal["asc", "desc"] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> EventPage:
        """Its events, at most 1,000 a page. Both dates are inclusive, and need a time zone."""
        page = self._get(
            f"{_instance(instance_id)}/events",
            event_type=event_type,
            start_date=moment(start_date),
            end_date=moment(end_date),
            keyword=keyword,
            order=order,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(EventPage, page)

    def replay(
        self, instance_id: str, to_sequence_num: int | None = None, diff_from: int | None = None
    ) -> Replay:
        """Its state after an event (default: the last), and what changed since another event."""
        path = f"{_instance(instance_id)}/replay"
        found = self._get(path, to_sequence_num=to_sequence_num, diff_from=diff_from)
        return cast(Replay, found)

    def resume_state(self, instance_id: str) -> Json:
        """What is needed to resume its work: suggestions, each with the events that show it."""
        return cast(Json, self._get(f"{_instance(instance_id)}/resume"))

    def resume(self, instance_id: str, **fields: Any) -> Json:
        """Register a successor for its work. ``Conflict`` ``instance_alive`` while it lives."""
        path = f"{_instance(instance_id)}/resume"
        return cast(Json, self._write("POST", path, fields, deferrable=False))


class Registry(Area):
    """``/api/v1/registry``"""

    def topology(self) -> Json:
        """All open instances as trees; orphans are marked."""
        return cast(Json, self._get("/api/v1/registry/topology"))

    def health(self) -> Json:
        """The health of all open instances, with the reasons."""
        return cast(Json, self._get("/api/v1/registry/health"))

    def discover(self, **criteria: Any) -> Json:
        """Instances that meet every criterion.

        ``scope, project, type, status, name, tag, available_parents_for, children_of``, and
        ``limit, offset, cursor``.
        """
        return cast(Json, self._get("/api/v1/registry/discover", **criteria))


def moment(when: datetime | str | None) -> str | None:
    """A time as the service takes it."""
    return when.isoformat() if isinstance(when, datetime) else when


def _instance(instance_id: str) -> str:
    return f"/api/instances/{part(instance_id)}"
