"""What a handler is given and gives back: the work's side of the command engine."""

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
    """Identifies a request: the key with its sender, method and path; and the body's hash."""

    receipt_key: str
    request_hash: str
    given: str
    # Under which name a version before this one kept the reply: looked up too, never written.
    earlier: str | None = None


class Context(NamedTuple):
    """Who sends a command, and as part of which request."""

    namespace: str
    actor: str
    request_id: str
    command: str
    idempotency: IdempotencyKey | None = None
    # Which part of the request the command is, where a request has several of one kind.
    offset: int = 0
    # Bytes of the request, or of the command's share of it: about what storing it takes.
    size: int = 0

    def origin(self, tags: Json | None) -> Origin:
        """What is stored with every event of the command."""
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
    """What a handler answers. The status is 200 or 201; 204 when there is nothing to say."""

    value: Json
    status: int = 200


class Outcome(NamedTuple):
    """A command that was carried out: its reply, and the position of its own last event.

    ``body`` is the reply as JSON; a reply that was given before is repeated to the letter.
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
    """Others were faster with everything that was found. Try again."""

    def __init__(self, **learnt: object) -> None:
        """``learnt`` are fields of the command for the next look at the read models."""
        super().__init__()
        self.learnt = learnt


class UnitOfWork:
    """What a handler works with: the time, the policy, and aggregates by name.

    Silence is measured with ``serving``: the service's own absence is nobody's (spec 5).

    A handler loads all that it needs before it calls the first verb: until then it can be
    interrupted and started anew once the missing aggregates are there.
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
        # What the caller wants kept with the command's events.
        self.tags: Json | None = None
        self.cache = cache
        self._seen: dict[str, Aggregate] = {}

    def load(self, cls: type[A], key: str) -> A:
        """The aggregate of this name; one without events if there is none."""
        stream_id = cls.stream_id(key)
        aggregate = self.cache.get(stream_id)
        if aggregate is None:
            raise Missing({stream_id: cls})
        assert isinstance(aggregate, cls)
        self._seen[stream_id] = aggregate
        return aggregate

    def prepare(self, *wanted: tuple[type[Aggregate], str]) -> None:
        """Have all of these brought into memory at once."""
        streams = {cls.stream_id(key): cls for cls, key in wanted}
        missing = {s: cls for s, cls in streams.items() if s not in self.cache}
        if missing:
            raise Missing(missing)

    def create(self, cls: type[A], key: str) -> A:
        """A new aggregate under a name that nobody has used: the append proves that."""
        aggregate = cls(id=cls.stream_id(key))
        self.cache[aggregate.id] = self._seen[aggregate.id] = aggregate
        return aggregate

    def begin(self, request_id: str) -> None:
        """Start on the next command."""
        self._seen = {}
        self.request_id = request_id
        self.tags = None

    def entropy(self, draw: int) -> bytes:
        """Sixteen random bytes, the same whenever this command starts anew."""
        return hashlib.sha256(f"{self.request_id}/{draw}".encode()).digest()[:16]

    @property
    def seen(self) -> Mapping[str, Aggregate]:
        """The aggregates that the present command has asked for."""
        return self._seen


Handler = Callable[[UnitOfWork, Any], Reply]
