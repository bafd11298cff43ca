"""What a handler gets (the unit of work) and returns (the reply)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from application.eventstore.mapper import Origin
from domain.aggregate import Aggregate, Json
from domain.errors import Unavailable
from domain.identity import DEFAULT_TYPES
from domain.liveness import ALWAYS, Serving

A = TypeVar("A", bound=Aggregate)


class Policy(NamedTuple):
    """The thresholds that decisions depend on (spec 5)."""

    stall_threshold_ms: int = 180_000
    instance_stale_seconds: float = 120
    claim_stale_seconds: float = 300
    instance_types: tuple[str, ...] = DEFAULT_TYPES


class IdempotencyKey(NamedTuple):
    """Identifies a request: the key with its sender, method and path, and the body's hash."""

    receipt_key: str
    request_hash: str
    given: str
    # The key under which an earlier version kept the receipt: read, but never written.
    earlier: str | None = None


class Context(NamedTuple):
    """Who sends a command, and as part of which request."""

    namespace: str
    actor: str
    request_id: str
    command: str
    idempotency: IdempotencyKey | None = None
    # The index of the command within its request, if the request has several.
    offset: int = 0
    # Bytes of the request, or of the command's share of it: roughly the bytes to store.
    size: int = 0

    def origin(self, tags: Json | None) -> Origin:
        """The metadata that is stored with every event of the command."""
        key = self.idempotency
        return Origin(
            self.request_id,
            self.actor,
            self.command,
            key.given if key else None,
            tags,
            self.offset,
        )


class Reply(NamedTuple):
    """A handler's reply. The status is 200 or 201, or 204 without a body."""

    value: Json
    status: int = 200


class Outcome(NamedTuple):
    """A command that was carried out: its reply, and the position of its last event.

    ``body`` is the reply as JSON. For a repeated request it is the stored reply, byte for byte.
    """

    body: bytes
    status: int
    position: int


class Missing(Exception):
    """A handler asked for aggregates that are not in memory yet."""

    def __init__(self, streams: dict[str, type[Aggregate]]) -> None:
        super().__init__(*streams)
        self.streams = streams


class Outdated(Unavailable):
    """Other clients took all the candidates first. Try again."""

    def __init__(self, **learnt: object) -> None:
        """``learnt`` are fields to set in the command before the read models are asked again."""
        super().__init__()
        self.learnt = learnt


class UnitOfWork:
    """What a handler works with: the time, the policy, and the aggregates.

    Silence is measured with ``serving``, so that outages of the service do not count (spec 5).

    A handler must load every aggregate before it changes one. When one is not in memory,
    :class:`Missing` is raised and the handler is called again once it is.
    """

    def __init__(
        self,
        policy: Policy,
        cache: dict[str, Aggregate],
        now: datetime,
        serving: Serving = ALWAYS,
    ) -> None:
        self.policy = policy
        self.now = now
        self.serving = serving
        self.request_id = ""
        # Metadata that the caller wants stored with the command's events.
        self.tags: Json | None = None
        self.cache = cache
        self._seen: dict[str, Aggregate] = {}

    def load(self, cls: type[A], key: str) -> A:
        """The aggregate with this key; one without events if it does not exist."""
        stream_id = cls.stream_id(key)
        aggregate = self.cache.get(stream_id)
        if aggregate is None:
            raise Missing({stream_id: cls})
        assert isinstance(aggregate, cls)
        self._seen[stream_id] = aggregate
        return aggregate

    def prepare(self, *wanted: tuple[type[Aggregate], str]) -> None:
        """Load all of these at once, so that ``load`` finds them in memory."""
        streams = {cls.stream_id(key): cls for cls, key in wanted}
        missing = {s: cls for s, cls in streams.items() if s not in self.cache}
        if missing:
            raise Missing(missing)

    def create(self, cls: type[A], key: str) -> A:
        """A new aggregate. The append proves that its key was never used."""
        aggregate = cls(id=cls.stream_id(key))
        self.cache[aggregate.id] = self._seen[aggregate.id] = aggregate
        return aggregate

    def begin(self, request_id: str) -> None:
        """Begin the next command of the batch."""
        self._seen = {}
        self.request_id = request_id
        self.tags = None

    def entropy(self, draw: int) -> bytes:
        """Sixteen random bytes that are the same each time this command is decided again."""
        return hashlib.sha256(f"{self.request_id}/{draw}".encode()).digest()[:16]

    @property
    def seen(self) -> Mapping[str, Aggregate]:
        """The aggregates that the current command has loaded or created."""
        return self._seen


Handler = Callable[[UnitOfWork, Any], Reply]
