"""JSON objects that are kept for long and looked at seldom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator
from pydantic_core import from_json, to_json

from domain.aggregate import Json


class Packed(MutableMapping[str, Json]):
    """A mapping from names to JSON objects that keeps each as text: a third of the memory.

    What it gives out is a copy; to change an object, put it back.
    """

    __slots__ = ("_packed",)

    def __init__(self, unpacked: Mapping[str, Json] | None = None) -> None:
        self._packed: dict[str, bytes] = {}
        self.update(unpacked or {})

    def __getitem__(self, name: str) -> Json:
        unpacked: Json = from_json(self._packed[name])
        return unpacked

    def __setitem__(self, name: str, value: Json) -> None:
        self._packed[name] = to_json(value)

    def __delitem__(self, name: str) -> None:
        del self._packed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __repr__(self) -> str:
        return f"Packed({dict(self)!r})"


# As the field of an aggregate: in the aggregate's state it is the plain mapping.
PackedJson = Annotated[Packed, PlainValidator(Packed), PlainSerializer(dict)]
