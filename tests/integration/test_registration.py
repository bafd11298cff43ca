"""Registered ids never collide, though drawn ids do (S0 AC1, spec 4)."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from application.engine.unit_of_work import Context, Outcome
from application.instances import RegisterInstance
from domain import identity
from domain.errors import GlobalExists
from domain.instances.instance import Instance
from tests.support.given import at
from tests.support.postgres import ask, ask_one, assert_contiguous
from tests.support.wiring import Service, context, service

REGISTRATIONS = 10_000
AT_ONCE = 1_000


@pytest.fixture
def here(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


def command(**rest: object) -> RegisterInstance:
    return RegisterInstance.model_validate({"project": "odin", "instance_type": "PS", **rest})


def submitted(here: Service, *wanted: tuple[object, Context]) -> list[Outcome | BaseException]:
    """What became of commands that were handed in at once."""
    return here.loop.run(here.engine.submit_all(wanted))


def id_of(outcome: Outcome | BaseException) -> str:
    assert isinstance(outcome, Outcome), outcome
    return str(orjson.loads(outcome.body)["instance_id"])


def test_ten_thousand_instances_of_one_project_have_ten_thousand_ids(here: Service) -> None:
    """S0 AC1 No two are the same; how many draws clashed is told by the events themselves."""
    made: list[str] = []
    for _ in range(REGISTRATIONS // AT_ONCE):
        batch = [(command(), context(command())) for _ in range(AT_ONCE)]
        made += [id_of(outcome) for outcome in submitted(here, *batch)]
    clashes = ask(
        here.url,
        "SELECT stream_id, (event_data ->> 'draws')::int FROM event_store"
        " WHERE event_type = 'instance_registered' AND event_data ? 'draws'",
    )

    print(f"{len(clashes)} of {REGISTRATIONS} registrations drew again: {clashes}")
    assert len(set(made)) == REGISTRATIONS, f"{clashes} clashed"
    assert all(identity.parse(instance_id) is not None for instance_id in made)
    registered = "SELECT count(DISTINCT stream_id) FROM event_store WHERE sequence_num = 1"
    assert ask_one(here.url, registered) == REGISTRATIONS
    assert ask_one(here.url, "SELECT count(*) FROM event_store") == REGISTRATIONS
    # About three clashes are to be expected; of thirty, something is wrong with the draws.
    assert len(clashes) < 30, clashes
    assert all(draws > 1 for _, draws in clashes)


def test_a_clash_is_drawn_again(here: Service) -> None:
    """Two registrations that draw the same: one request id, one moment, hence one id."""
    same = context(command())
    first, second, third = (id_of(outcome) for outcome in submitted(here, *[(command(), same)] * 3))

    assert len({first, second, third}) == 3
    draws = [
        here.store.read_stream("default", Instance.stream_id(instance_id))[0].event_data.get(
            "draws"
        )
        for instance_id in (first, second, third)
    ]
    assert draws == [None, 2, 3]
    assert_contiguous(here.url)


def test_an_id_that_is_drawn_again_makes_a_whole_instance(here: Service) -> None:
    """What comes with a registration comes with the draw that was free, and only with that."""
    parent = here.do(command())["instance_id"]
    below = command(scope="orchestration", parent_id=parent)
    same = context(below)
    made = [id_of(outcome) for outcome in submitted(here, (below, same), (below, same))]

    assert list(here.replayed(Instance, parent).children) == made
    for instance_id in made:
        child = here.replayed(Instance, instance_id)
        assert (child.version, child.parent_id, child.status) == (1, parent, "active")


def test_a_closed_instance_s_id_is_not_given_away(here: Service) -> None:
    """An id is for ever: drawing it again is a clash, whatever became of its instance."""
    instance = Instance(id=Instance.stream_id("odin-PS-8f4a2b"))
    instance.register(
        at(0), project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    instance.close(at(1))
    here.given(instance)
    made = {here.do(command())["instance_id"] for _ in range(50)}

    assert instance.key not in made
    assert here.replayed(Instance, instance.key).version == 2


def test_two_processes_that_register_at_once_never_share_an_id(here: Service) -> None:
    with service(here.url, projecting=False) as there:
        made: list[str] = []
        for _ in range(10):
            begun = [one.begin(command()) for one in (here, there) for _ in range(3)]
            made += [future.result()["instance_id"] for future in begun]

    assert len(set(made)) == len(made) == 60
    assert_contiguous(here.url)


def test_two_processes_that_want_the_global_instance_at_once_make_one(here: Service) -> None:
    """S1 2.2 The claim's own stream decides, not a look at a read model."""
    with service(here.url, projecting=False) as there:
        futures = [one.begin(command(scope="global")) for one in (here, there) for _ in range(4)]
        errors = [future.exception() for future in futures]

    assert errors.count(None) == 1
    refusals = [error for error in errors if error is not None]
    assert all(isinstance(error, GlobalExists) for error in refusals)
    alive = "SELECT count(*) FROM event_store WHERE event_type = 'instance_registered'"
    assert ask_one(here.url, alive) == 1
    assert_contiguous(here.url)
