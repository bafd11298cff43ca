"""A batch of the projector is bounded by bytes: for no more than that do other namespaces wait."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

import pytest

from projections import READ_MODELS
from projections.kernel import projector as projector_module
from tests.integration.test_projector import folder
from tests.support.given import at, new_session
from tests.support.postgres import ask
from tests.support.wiring import Service, service

KIB = 1024


@pytest.fixture
def unprojected(database: str) -> Iterator[Service]:
    with service(database, projecting=False) as running:
        yield running


def noted(service: Service, number: int, text: str) -> None:
    """A session with so many changes of its metadata, each of them this text."""
    session = new_session(str(uuid.uuid4()))
    for second in range(number - 1):
        session.update(at(second), metadata={"text": text})
    service.given(session)


@pytest.mark.parametrize("kind", ["compressible", "random"])
def test_large_events_are_folded_in_batches_of_some_megabytes(
    unprojected: Service, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty events of 60 KiB are several batches; in the end the rows are what they are."""
    monkeypatch.setattr(projector_module, "BATCH_BYTES", 600 * KIB)
    chance = random.Random(7)
    text = "x" * 60 * KIB
    if kind == "random":
        text = "".join(chr(chance.randrange(48, 122)) for _ in range(60 * KIB))
    noted(unprojected, 40, text)
    positions: list[int] = []
    with folder(unprojected.url, READ_MODELS) as it:
        while it.behind():
            position = it.fold("default")
            assert position is not None
            positions.append(position)
    assert positions[-1] == 40
    # What is compressed in the table is only guessed.
    assert len(positions) >= (2 if kind == "compressible" else 4)
    [(metadata,)] = ask(unprojected.url, "SELECT metadata FROM sessions")
    assert metadata == {"text": text}


def test_an_event_that_is_larger_than_a_batch_is_folded_alone(
    unprojected: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "BATCH_BYTES", 1)
    noted(unprojected, 4, "y" * 50 * KIB)
    with folder(unprojected.url, READ_MODELS) as it:
        assert [it.fold("default") for _ in range(4)] == [1, 2, 3, 4]


def test_small_events_are_folded_as_many_at_once_as_ever(unprojected: Service) -> None:
    noted(unprojected, 600, "small")
    with folder(unprojected.url, READ_MODELS) as it:
        assert it.fold("default") == 600
