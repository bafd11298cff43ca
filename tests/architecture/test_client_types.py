"""The client's types of replies say what the service's models say, field by field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import pytest
from typing_extensions import is_typeddict

from holdfast.replies import REPLIES
from interfaces.operations import OPERATIONS, Operation
from interfaces.replies.base import Health, Time

# Of these the client reads only part, and of a service of whatever version.
READ_IN_PART = {"/health", "/api/docs"}
# Fields that earlier versions of the service did not answer: a client of today still knows them.
SINCE_LATER = {
    "Claim": {
        "claim_duration_minutes",
        "heartbeat_age_human",
        "heartbeat_age_seconds",
        "priority",
        "seconds_until_takeover",
        "stale",
        "status",
        "title",
        "track",
        "unknown_since",
    },
}
# Replies of several operations that one of the client's types stands for.
Pair = tuple[Any, tuple[Any, ...]]


def without_names(path: str) -> str:
    """A path as the client writes it."""
    return re.sub(r"\{[^}]*\}", "{}", path)


BY_PATH: dict[tuple[str, str], Operation] = {
    (operation.verb, without_names(operation.path)): operation for operation in OPERATIONS
}


def pairs() -> Iterator[Pair]:
    """Every type of the client's, with all models of replies that it stands for."""
    stands_for: dict[Any, list[Any]] = {}
    for (verb, path), expected in REPLIES.items():
        if path in READ_IN_PART:
            continue
        reply = BY_PATH[verb, path].reply
        for one in alternatives(expected):
            if is_typeddict(one):
                stands_for.setdefault(one, []).append(reply)
    done: set[Any] = set()
    while stands_for:
        expected, models = stands_for.popitem()
        done.add(expected)
        yield expected, tuple(models)
        for field, kind in hints(expected).items():
            for one in parts(kind):
                if is_typeddict(one) and one not in done:
                    found = [m for model in models for m in parts(hints(model).get(field))]
                    stands_for.setdefault(one, []).extend(m for m in found if is_typeddict(m))


def hints(kind: Any) -> dict[str, Any]:
    """A typed dictionary's fields."""
    return get_type_hints(kind, include_extras=True)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """What a value may be, each kind by itself."""
    if get_origin(kind) is NotRequired:
        return alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(one for each in get_args(kind) for one in alternatives(each))
    return (kind,)


def parts(kind: Any) -> list[Any]:
    """The kinds of a value, and of what is in it if it is a list."""
    return [
        part
        for one in alternatives(kind)
        for part in (parts(get_args(one)[0]) if get_origin(one) is list else [one])
    ]


def required(kind: Any) -> set[str]:
    """The fields that are always there."""
    return {
        name
        for name, hint in hints(kind).items()
        if get_origin(hint) is not NotRequired and name in kind.__required_keys__
    }


def said(kind: Any) -> frozenset[Any]:
    """What a type says of a value, in words that both sides share."""
    found: set[Any] = set()
    for one in alternatives(kind):
        origin = get_origin(one)
        if one is Time or one == Annotated[str, "a moment"]:
            found.add("a moment")
        elif is_typeddict(one) or origin is dict:
            found.add("an object")
        elif origin is Literal:
            found |= {("the word", word) for word in get_args(one)}
        elif origin is list:
            found.add(("a list of", said(get_args(one)[0])))
        elif one in (None, NoneType):
            found.add("nothing")
        else:
            found.add(one)
    return frozenset(found)


PAIRS = [pytest.param(*pair, id=pair[0].__name__) for pair in pairs()]


def test_the_client_expects_a_reply_of_every_operation_it_knows() -> None:
    """What it expects of a path is what that operation answers: a body, none, or either."""
    for (verb, path), expected in REPLIES.items():
        if path in READ_IN_PART:
            continue
        operation = BY_PATH[verb, path]
        kinds = alternatives(expected)
        can_be_empty = None in kinds or NoneType in kinds
        assert can_be_empty == (operation.reply is None or operation.may_be_empty), (verb, path)


@pytest.mark.parametrize(("expected", "models"), PAIRS)
def test_a_type_has_the_fields_of_the_reply(expected: Any, models: tuple[Any, ...]) -> None:
    """All of them, and no other; what one of its replies may lack may be missing."""
    assert set(hints(expected)) == {name for model in models for name in hints(model)}
    always = set.intersection(*(required(model) for model in models))
    assert required(expected) == always - SINCE_LATER.get(expected.__name__, set())


@pytest.mark.parametrize(("expected", "models"), PAIRS)
def test_a_type_says_of_each_field_what_the_reply_does(
    expected: Any, models: tuple[Any, ...]
) -> None:
    """Whether it is null, a moment, a list, and which words it can be."""
    for name, kind in hints(expected).items():
        told = frozenset.union(*(said(hints(m)[name]) for m in models if name in hints(m)))
        assert said(kind) == told, name


def test_health_is_as_the_client_reads_it() -> None:
    """Of the service's health it needs two fields."""
    expected = REPLIES["GET", "/health"]
    assert required(expected) <= required(Health)
    for name, kind in hints(expected).items():
        assert said(kind) == said(hints(Health)[name])
