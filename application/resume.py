"""The command that resumes an instance: a successor carries its work on (spec 7)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from application.engine.fields import Command, Found, Id, Label, Name
from application.engine.unit_of_work import Handler, Reply, UnitOfWork
from application.holdings import grant, move, prepare_holdings
from application.instance_brief import brief, checkpoint, held_claims, stale_warning
from application.instance_view import view
from application.instances import give_parent, only_global, open_parent, unregistered
from domain.claims.claim import GLOBAL
from domain.errors import UnknownParent
from domain.instances.hierarchy import MAY_BE_ROOT, require_pair
from domain.instances.instance import Instance

# How many successors of a closed parent are followed to find an open one.
FARTHEST_PARENT = 20


class ResumeInstance(Command):
    """Resume a stale or closed instance: register a successor that gets all it held."""

    instance_id: str
    hostname: Label | None = None
    tty: Name | None = None
    codebase: Name | None = None
    parent_id: Id | None = None
    resume_chain: Found[list[str]] = Field(default_factory=list)


def resume(work: UnitOfWork, command: ResumeInstance) -> Reply:
    """201 with the successor and the predecessor's brief; 200 with the same one if repeated."""
    instance = work.load(Instance, command.instance_id)
    instance.require_known()
    if instance.successor is not None:
        return _reply(work, command, instance, work.load(Instance, instance.successor), 200)
    instance.require_resumable(work.now, work.policy.instance_stale_seconds, work.serving)
    parent = _parent(work, instance, command.parent_id)
    prepare_holdings(work, instance)
    work.prepare(*((Instance, child) for child in instance.children))
    children = [work.load(Instance, child) for child in instance.children]
    only = None
    if instance.scope == "global" and GLOBAL not in instance.held:
        only = only_global(work)
    successor, draws = unregistered(work, instance.project, instance.instance_type)
    successor.register(
        work.now,
        **instance.inheritance(),
        parent_id=parent.key if parent else None,
        hostname=command.hostname,
        tty=command.tty,
        codebase=command.codebase or instance.codebase,
        draws=draws if draws > 1 else None,
    )
    instance.hand_over(work.now, successor.key)
    if parent is not None:
        parent.remove_child(work.now, instance.key)
        parent.add_child(work.now, successor.key)
    if only is not None:
        grant(work, only, successor)
    move(work, instance.held, instance, successor)
    for child in children:
        if child.status != "closed":
            give_parent(work, child, instance, successor)
    _load_checkpoint(work, instance, successor)
    return _reply(work, command, instance, successor, 201)


def _parent(work: UnitOfWork, instance: Instance, given: str | None) -> Instance | None:
    """The successor's parent: the given one, or the old parent or the successor of that.

    If the old parent is closed and has no open successor, the instance becomes a root if its
    scope allows it; else this raises :class:`UnknownParent`. A given parent is checked as in
    registering.
    """
    if given is not None:
        parent = open_parent(work, given, instance.key)
        require_pair(instance.scope, parent.scope if parent else None)
        return parent
    if instance.parent_id is None:
        return None
    former = work.load(Instance, instance.parent_id)
    for _ in range(FARTHEST_PARENT):
        if former.status != "closed":
            return former
        if former.successor is None:
            break
        former = work.load(Instance, former.successor)
    if not MAY_BE_ROOT[instance.scope]:
        raise UnknownParent.of("parent_id", f"{former.key} is closed; name another parent")
    return None


def _load_checkpoint(work: UnitOfWork, instance: Instance, successor: Instance) -> None:
    kept = checkpoint(instance)
    if kept is None:
        return
    loaded = {
        "checkpoint_id": kept["checkpoint_id"],
        "from_instance_id": kept["from_instance_id"] or instance.key,
        **({"label": kept["label"]} if kept["label"] else {}),
        "state": kept["state"],
    }
    successor.record_work(work.now, "checkpoint_loaded", loaded)


def _reply(
    work: UnitOfWork, command: ResumeInstance, instance: Instance, successor: Instance, status: int
) -> Reply:
    """The successor and its predecessor's brief, whose evidence is in the predecessor's stream."""
    stale_seconds = work.policy.instance_stale_seconds
    ended = instance.closed_at or work.now
    was_silent = instance.gap_seconds(ended) > stale_seconds
    chain = [*command.resume_chain, successor.key]
    return Reply(
        {
            **brief(instance, work.now, stale_seconds, work.serving, chain),
            "instance_id": successor.key,
            "instance": view(successor, work.now, stale_seconds, work.serving),
            "predecessor": instance.key,
            "successor": successor.key,
            "stale_warning": stale_warning(instance, ended) if was_silent else None,
            "held_claims": held_claims(successor),
        },
        status,
    )


HANDLERS: Mapping[type, Handler] = {ResumeInstance: resume}
