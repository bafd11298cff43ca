from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from domain.aggregate import Aggregate
from domain.instances.instance import Instance
from domain.instances.packed import Packed, PackedJson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)


@dataclass(slots=True, kw_only=True)
class Keeper(Aggregate):
    category = "keeper"

    kept: PackedJson = field(default_factory=Packed)


@given(st.dictionaries(st.text(), OBJECTS, max_size=4))
def test_what_goes_in_comes_out(objects: dict[str, dict[str, object]]) -> None:
    packed = Packed()
    packed.update(objects)

    assert packed == objects
    assert list(packed) == list(objects)
    assert len(packed) == len(objects)


def test_the_last_object_of_a_name_is_kept_and_one_that_is_removed_is_gone() -> None:
    packed = Packed({"a": {"n": 1}, "b": {}})
    packed["a"] = {"n": 2}
    del packed["b"]

    assert packed == {"a": {"n": 2}}
    assert "b" not in packed


def test_changing_what_was_given_out_changes_nothing() -> None:
    packed = Packed({"a": {"n": [1]}})

    packed["a"]["n"].append(2)

    assert packed["a"] == {"n": [1]}


def test_an_aggregate_s_state_has_the_plain_mapping_and_gives_it_back() -> None:
    keeper = Keeper(id="keeper-1", kept=Packed({"a": {"n": 1, "text": "ä"}}))

    assert keeper.state()["kept"] == {"a": {"n": 1, "text": "ä"}}
    assert type(keeper.state()["kept"]) is dict
    assert Keeper.from_state(keeper.state()) == keeper


def test_an_instance_s_newest_events_are_evidence_with_number_time_and_data() -> None:
    at = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
    instance = Instance(id="instance-odin-PS-8f4a2b")
    instance.register(at, project="odin", project_name="odin", instance_type="PS", scope="project")
    instance.record_work(at, "epic_started", {"epic_id": "epic-003"})
    instance.record_work(at, "epic_started", {"epic_id": "epic-004"})

    evidence = {
        "epic_started": {
            "sequence_num": 3,
            "timestamp": "2026-01-05T09:30:00Z",
            "data": {"epic_id": "epic-004"},
        }
    }
    assert instance.latest == evidence
    assert instance.state()["latest"] == evidence
