"""What an instance's state keeps of others is bounded (spec 4)."""

from __future__ import annotations

from typing import Any

import pytest

from application import instances, resume
from application.engine.unit_of_work import Missing, Policy, UnitOfWork
from domain.aggregate import Aggregate
from domain.claims.holder import MOST_LOST
from domain.errors import TooManyChildren
from domain.instances.instance import MAX_CHILDREN, Instance
from domain.instances.instance_events import MOST_SESSIONS
from tests.support.given import at


def known(name: str, **rest: Any) -> Instance:
    instance = Instance(id=Instance.stream_id(name))
    given = {"project": "p", "project_name": "p", "instance_type": "PS", **rest}
    instance.register(at(0), **given)
    instance.collect_events()
    return instance


def with_children(name: str, count: int) -> Instance:
    parent = known(name, scope="project")
    for number in range(count):
        parent.add_child(at(1), f"child-{number}")
    parent.collect_events()
    return parent


def done(cache: dict[str, Aggregate], handler: Any, command: object) -> Any:
    """What a handler answers; what it asks for beyond these aggregates is not there."""
    while True:
        work = UnitOfWork(Policy(), cache, at(1))
        work.begin("request")
        try:
            return handler(work, command).value
        except Missing as missing:
            cache |= {s: cls(id=s) for s, cls in missing.streams.items()}


@pytest.fixture(scope="module")
def full() -> Instance:
    return with_children("p-PS-000001", MAX_CHILDREN)


def test_a_parent_that_has_as_many_as_it_may_takes_no_more(full: Instance) -> None:
    """Given a full parent, then no way leads below it, and nothing is recorded."""
    orphan = known("p-PS-000002", scope="orchestration", parent_id="p-PS-000009")
    gone = known("p-PS-000003", scope="orchestration", parent_id="p-PS-000009")
    gone.close(at(1))
    gone.collect_events()
    cache: dict[str, Aggregate] = {one.id: one for one in (full, orphan, gone)}
    body = {"project": "p", "instance_type": "PS", "scope": "orchestration"}
    below = {"parent_id": full.key}
    commands: list[tuple[Any, object]] = [
        (instances.register, instances.RegisterInstance(**body, **below)),
        (instances.set_parent, instances.SetParent(instance_id=orphan.key, **below)),
        (resume.resume, resume.ResumeInstance(instance_id=gone.key, **below)),
    ]
    for handler, command in commands:
        with pytest.raises(TooManyChildren) as refusal:
            done(cache, handler, command)
        assert refusal.value.details == {"children": MAX_CHILDREN, "most": MAX_CHILDREN}
        assert not any(one.pending for one in cache.values())


def test_one_that_is_there_already_may_be_named_again(full: Instance) -> None:
    """Given its own child, then naming the full parent again changes nothing."""
    child = known("child-0", scope="orchestration", parent_id=full.key)
    cache: dict[str, Aggregate] = {one.id: one for one in (full, child)}
    same = instances.SetParent(instance_id="child-0", parent_id=full.key)
    assert done(cache, instances.set_parent, same)["parent_id"] == full.key
    assert not full.pending


def test_who_ends_makes_room() -> None:
    """Given a full parent, when a child is closed, then another finds room."""
    parent = with_children("p-PS-000001", MAX_CHILDREN)
    child = known("child-0", scope="orchestration", parent_id=parent.key)
    cache: dict[str, Aggregate] = {one.id: one for one in (parent, child)}
    done(cache, instances.close, instances.CloseInstance(instance_id="child-0"))
    body = {"project": "p", "instance_type": "PS", "scope": "orchestration"}
    command = instances.RegisterInstance(**body, parent_id=parent.key)
    assert done(cache, instances.register, command)["parent_id"] == parent.key
    assert len(parent.children) == MAX_CHILDREN


def test_one_from_before_that_has_more_is_known_as_it_is() -> None:
    """Given events and a snapshot of more than may be, then they are read, and some may end."""
    parent = with_children("p-PS-000001", MAX_CHILDREN + 10)
    again = Instance.from_state(parent.state())
    assert len(again.children) == MAX_CHILDREN + 10
    again.remove_child(at(2), "child-3")
    with pytest.raises(TooManyChildren):
        again.require_room_for("another")


def test_the_latest_of_many_sessions_are_known() -> None:
    """Given an instance that works in ever more sessions, then its state does not grow for ever."""
    instance = known("p-PS-000001", scope="project")
    for number in range(MOST_SESSIONS + 5):
        instance.join(at(1), f"s{number}")
    assert len(instance.sessions) == MOST_SESSIONS
    instance.leave(at(2), f"s{MOST_SESSIONS + 4}", "superseded")
    assert instance.lost_work is None, "it has others"


def test_the_latest_of_many_losses_are_told() -> None:
    """Given one that does not beat while its items are cancelled, then it is told the latest."""
    instance = known("p-PS-000001", scope="project")
    for number in range(MOST_LOST + 5):
        instance.acquire(at(1), f"item-{number}", number)
        instance.lose_cancelled(at(1), f"item-{number}")
    assert len(instance.lost_claims) == MOST_LOST
    assert instance.lost_claims[-1]["item_id"] == f"item-{MOST_LOST + 4}"
    instance.beat(at(2))
    assert instance.lost_claims == []
