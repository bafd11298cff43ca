"""What changed between two states (S2, spec 17)."""

from __future__ import annotations

import pytest

from application.history import changed
from domain.aggregate import Json
from domain.instances.instance import Instance
from tests.support.given import at


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": [1, 2]}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": 1}, {"a": True}, {"a": [1, True]}),
        ({"a": [0]}, {"a": [False]}, {"a": [[0], [False]]}),
        ({"a": 1}, {}, {"a": [1, None]}),
        ({}, {"a": 1}, {"a": [None, 1]}),
        ({"a": None}, {}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a.c": [2, 3]}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, {"a.b.c": [1, 2]}),
        # Lists are values: what moved within one is not worth a path.
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [[1, 2], [2, 1]]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, {"a": [[{"b": 1}], [{"b": 2}]]}),
        # An empty object is a value, until something is in it.
        ({"a": {}}, {"a": {}}, {}),
        ({"a": None}, {"a": {}}, {"a": [None, {}]}),
        ({}, {"a": {}}, {"a": [None, {}]}),
        ({"a": {}}, {"a": {"b": 1}}, {"a.b": [None, 1]}),
        ({"a": {"b": 1}}, {"a": {}}, {"a.b": [1, None]}),
        ({}, {"a": {"b": {"c": 1}}}, {"a.b.c": [None, 1]}),
        ({"a": {"b": 1}}, {"a": None}, {"a.b": [1, None]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": [1, {"b": 1}]}),
        # A name with a dot is one step all the same.
        ({}, {"v1.2": {"n": 1}}, {'"v1.2".n': [None, 1]}),
        ({"a": {"b": 1}, "a.b": 1}, {"a": {"b": 2}, "a.b": 3}, {'"a.b"': [1, 3], "a.b": [1, 2]}),
        ({"": {"n": 1}}, {"": {"n": 2}}, {'"".n': [1, 2]}),
    ],
)
def test_each_path_that_differs_is_told_with_both_values(
    old: Json, new: Json, difference: Json
) -> None:
    assert changed(old, new) == difference


def test_paths_are_in_order() -> None:
    assert list(changed({}, {"z": 1, "a": {"y": 1, "b": 2}})) == ["a.b", "a.y", "z"]


def test_neither_state_is_changed() -> None:
    old, new = {"a": {"b": 1}}, {"a": {"c": 1}}

    changed(old, new)

    assert (old, new) == ({"a": {"b": 1}}, {"a": {"c": 1}})


def test_what_an_event_did_shows_and_nothing_else() -> None:
    instance = Instance(id="instance-odin-PS-8f4a2b")
    instance.register(
        at(0), project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    before = instance.state()
    instance.beat(at(7), context_percent=40)

    assert changed(before, instance.state()) == {
        "context_num": [1, 2],
        "context_percent": [None, 40],
        "last_event_type": ["instance_registered", "instance_heartbeat"],
        "last_heartbeat": ["2026-01-01T12:00:00Z", "2026-01-01T12:00:07Z"],
        "updated_at": ["2026-01-01T12:00:00Z", "2026-01-01T12:00:07Z"],
        "version": [1, 2],
    }
