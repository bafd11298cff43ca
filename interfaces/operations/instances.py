"""The operations on instances, the registry, and bulk heartbeats (S0, S1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import Field, ValidationError

from application import instance_brief, supervising, work_events
from application import instances as commands
from application.engine.fields import Sought
from application.engine.unit_of_work import Context
from application.findings import findings
from application.resume import ResumeInstance
from application.sessions import BeatSession
from domain.aggregate import Json
from domain.errors import HoldfastError, InvalidInput, Unavailable
from domain.instances.hierarchy import Scope
from domain.instances.instance import InstanceStatus
from interfaces.operations.base import (
    ActionParams,
    ActionResult,
    Flag,
    Listing,
    Operation,
    Params,
    Services,
    Tool,
    action,
    command,
    query,
)
from interfaces.replies import events as event_replies
from interfaces.replies import instances as instance_replies
from projections import instances

BULK_MAX = 1_000  # spec 9
# The fields of a single heartbeat's reply that a bulk reply has too. Lost claims are told once.
TOLD_IN_BULK = ("status", "lost_claims", "warnings", "lost_work")


class InstanceList(Listing):
    """Which instances to list."""

    project: str | None = None
    active_only: Flag = False


class OneInstance(Params):
    """The instance in the path: its id, or a prefix of the id or of its hash."""

    instance_id: str


class KnownInstance(Params):
    """The instance in the path, by its full id."""

    instance_id: str


class Discovery(Listing):
    """Criteria that an instance must meet, all of them."""

    scope: Scope | None = None
    project: str | None = None
    type: str | None = None
    status: InstanceStatus | None = None
    name: Sought | None = None
    tag: Sought | None = None
    available_parents_for: Scope | None = None
    children_of: str | None = None


class Heartbeats(ActionParams):
    """Heartbeats of many instances and sessions."""

    heartbeats: Annotated[list[dict[str, Any]], Field(max_length=BULK_MAX)]


async def _list(s: Services, namespace: str, p: InstanceList) -> Json:
    """List instances, grouped by project, the latest heartbeat first."""
    return await instances.listed(
        s.reads, namespace, p.page, project=p.project, active_only=p.active_only
    )


async def _find(s: Services, namespace: str, p: OneInstance) -> Json:
    """Get one instance, or all whose id or hash starts with the given prefix."""
    return await instances.find(s.reads, namespace, p.instance_id)


async def _resume_brief(s: Services, namespace: str, p: KnownInstance) -> Json:
    """Get an instance's brief: state of its work, next steps, and the events that show it."""
    return await s.history.ask(
        instance_brief.read, namespace, p.instance_id, s.instance_stale_seconds
    )


async def _chain(s: Services, namespace: str, command: ResumeInstance) -> Mapping[str, object]:
    found = await s.history.ask(instance_brief.chain, namespace, command.instance_id)
    return {"resume_chain": found}


async def _discover(s: Services, namespace: str, p: Discovery) -> Json:
    """Find instances that meet every given criterion."""
    return await instances.discovered(
        s.reads,
        namespace,
        p.page,
        available_parents_for=p.available_parents_for,
        scope=p.scope,
        project=p.project,
        type=p.type,
        status=p.status,
        name=p.name,
        tag=p.tag,
        children_of=p.children_of,
    )


async def _health(s: Services, namespace: str, p: Params) -> Json:
    """Rate the health of every open instance, with reasons."""
    return await instances.healths(s.reads, namespace)


async def _topology(s: Services, namespace: str, p: Params) -> Json:
    """Get the tree of all open instances, with orphans marked."""
    return await instances.topology(s.reads, namespace)


async def _beat_all(s: Services, context: Context, p: Heartbeats) -> ActionResult:
    """Record many heartbeats at once; each has a result of its own."""
    results: list[Json] = []
    accepted: list[tuple[int, tuple[object, Context]]] = []
    share = context.size // max(1, len(p.heartbeats))
    context = context._replace(idempotency=None, size=share)
    for number, beat in enumerate(p.heartbeats):
        results.append({"id": beat.get("instance_id") or beat.get("session_id"), "ok": False})
        try:
            parsed = _parse(beat)
        except InvalidInput as e:
            results[number]["error"] = {**_refusal(e), "field": e.errors[0]["field"]}
        else:
            if parsed.claim is None and p.claim is not None:
                parsed = parsed.model_copy(update={"claim": p.claim})
            name = "session_heartbeat" if "session_id" in beat else "instance_heartbeat"
            own = context._replace(command=name, offset=number)
            accepted.append((number, (parsed, own)))
    position = 0
    outcomes = await s.submit_all([one for _, one in accepted]) if accepted else []
    for (number, _), outcome in zip(accepted, outcomes, strict=True):
        if isinstance(outcome, HoldfastError):
            results[number]["error"] = _refusal(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            reply = orjson.loads(outcome.body)
            told = {name: reply[name] for name in TOLD_IN_BULK if name in reply}
            results[number] |= {"ok": True, **told}
            position = max(position, outcome.position)
    done = sum(result["ok"] for result in results)
    if not done and (away := next((o for o in outcomes if isinstance(o, Unavailable)), None)):
        raise away  # nothing is known to be wrong with any of them: all may be sent again
    if not position:
        position = await s.reads.head(context.namespace)
    value = {"results": results, "accepted": done, "rejected": len(results) - done}
    return ActionResult(value, position)


def _parse(beat: Json) -> commands.BeatInstance | BeatSession:
    """A session's or an instance's heartbeat. Raises ``InvalidInput`` for the first mistake."""
    named = beat.keys() & {"session_id", "instance_id"}
    if len(named) != 1:
        message = "is required, or session_id" if not named else "and session_id are two: name one"
        raise InvalidInput.of("instance_id", message)
    kind = BeatSession if "session_id" in named else commands.BeatInstance
    try:
        return kind.model_validate(beat)
    except ValidationError as e:
        raise InvalidInput.of_fields(findings(e)[:1]) from None


def _refusal(error: HoldfastError) -> Json:
    refusal: Json = {"code": error.code, "message": error.message}
    return {**refusal, "details": error.details} if error.details else refusal


_INSTANCE = "/api/instances/{instance_id}"

ROWS: tuple[Operation, ...] = (
    command(
        "instance_heartbeat",
        "POST",
        f"{_INSTANCE}/heartbeat",
        commands.BeatInstance,
        bucket="ingest",
        reply=instance_replies.InstanceBeat,
        tool=Tool(
            "mcp_meta_heartbeat",
            "Call it at least once a minute while you work, or the instance counts as stale after"
            " two. What you leave out stays as it was.",
        ),
    ),
    command(
        "event_emit",
        "POST",
        f"{_INSTANCE}/events",
        work_events.EmitEvent,
        201,
        bucket="ingest",
        reply=event_replies.Emitted,
        tool=Tool(
            "mcp_meta_emit_event",
            "mcp_meta_list_event_types lists the types and the fields that event_data must have;"
            " it may have others too.",
        ),
    ),
    action(
        "heartbeat_bulk",
        "POST",
        "/api/heartbeats",
        Heartbeats,
        _beat_all,
        "write",
        "ingest",
        reply=instance_replies.Beats,
    ),
    command(
        "instance_register",
        "POST",
        "/api/instances",
        commands.RegisterInstance,
        201,
        reply=instance_replies.Instance,
        tool=Tool(
            "mcp_meta_register_instance",
            "Call it once, at the start, and keep the instance_id from the reply: every other tool"
            " takes it. instance_type is PS or MS unless the service was set up for others;"
            " initial_context is the percentage of your context window in use, or an object.",
        ),
    ),
    query(
        "instance_list",
        "/api/instances",
        InstanceList,
        _list,
        reply=instance_replies.InstancePage,
        tool=Tool(
            "mcp_meta_list_instances",
            "active_only leaves out closed instances; stale ones are listed and marked as stale.",
        ),
    ),
    query(
        "instance_get",
        _INSTANCE,
        OneInstance,
        _find,
        reply=instance_replies.FoundInstance,
        tool=Tool(
            "mcp_meta_get_instance_details",
            "instance_id may be a prefix of an id or of its hash, at least four characters long;"
            " match in the reply says exact or prefix.",
        ),
    ),
    command(
        "instance_close",
        "POST",
        f"{_INSTANCE}/close",
        commands.CloseInstance,
        reply=instance_replies.ClosedInstance,
        tool=Tool(
            "mcp_meta_close_instance", "A closed instance cannot be opened again or written to."
        ),
    ),
    query(
        "instance_resume_brief",
        f"{_INSTANCE}/resume",
        KnownInstance,
        _resume_brief,
        reply=instance_replies.ResumeBrief,
    ),
    command(
        "instance_resume",
        "POST",
        f"{_INSTANCE}/resume",
        ResumeInstance,
        201,
        prepare=_chain,
        reply=instance_replies.ResumeBrief,
        tool=Tool(
            "mcp_meta_resume_instance",
            "Call it instead of registering when you carry on another instance's work: the reply"
            " has your own instance_id, the checkpoint's state, and suggested next steps. Heed its"
            " stale_warning. A live instance is refused.",
        ),
    ),
    command(
        "instance_take_up",
        "POST",
        f"{_INSTANCE}/take-up",
        supervising.TakeUpInstance,
        reply=instance_replies.Instance,
    ),
    command(
        "instance_put_down",
        "POST",
        f"{_INSTANCE}/put-down",
        supervising.PutDownInstance,
        reply=instance_replies.Instance,
    ),
    command(
        "instance_set_parent",
        "PUT",
        f"{_INSTANCE}/parent",
        commands.SetParent,
        reply=instance_replies.Instance,
    ),
    command(
        "checkpoint_create",
        "POST",
        f"{_INSTANCE}/checkpoints",
        work_events.CreateCheckpoint,
        201,
        reply=event_replies.Checkpoint,
        tool=Tool(
            "mcp_meta_create_checkpoint",
            "Put into state whatever you would need to carry on without your context; replay"
            " returns it as checkpoint_state.",
        ),
    ),
    query(
        "registry_instances",
        "/api/v1/registry/instances",
        InstanceList,
        _list,
        reply=instance_replies.InstancePage,
    ),
    query(
        "registry_discover",
        "/api/v1/registry/discover",
        Discovery,
        _discover,
        reply=instance_replies.DiscoveredPage,
    ),
    query(
        "registry_health",
        "/api/v1/registry/health",
        Params,
        _health,
        reply=instance_replies.RegistryHealth,
    ),
    query(
        "registry_topology",
        "/api/v1/registry/topology",
        Params,
        _topology,
        reply=instance_replies.Forest,
    ),
)
