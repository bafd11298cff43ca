"""The service without its faces, as one process has it: engine, store, projector, reads."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson

from application import machines, sessions
from application.engine.engine import Engine
from application.engine.unit_of_work import Context, Handler, IdempotencyKey, Outcome, Policy
from application.eventstore.mapper import Mapper, NewRow, Origin
from application.eventstore.store import EventStore
from application.registry import EVENTS, HANDLERS
from domain.aggregate import Aggregate, Json
from domain.sessions.session import Session
from projections import DEFINITIONS
from projections.kernel.definition import Definition
from projections.kernel.progress import Progress
from projections.kernel.projector import Projector
from projections.kernel.reads import Reads

T = TypeVar("T")
P = ParamSpec("P")
A = TypeVar("A", bound=Aggregate)

NAMES: Mapping[type, str] = {
    sessions.BeatSession: "session_heartbeat",
    machines.BeatMachine: "machine_heartbeat",
}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """A command that was carried out."""

    value: Json
    status: int
    position: int
    body: bytes

    def __getitem__(self, name: str) -> Any:
        """A field of the reply."""
        return self.value[name]


class Loop:
    """An event loop in a thread of its own, so that a test reads from top to bottom."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="test-loop", daemon=True
        )
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin; it has run up to its first wait when this returns."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(PATIENCE_SECONDS)
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out, and wait for the end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Service:
    """What a test talks to."""

    url: str
    loop: Loop
    store: EventStore
    mapper: Mapper
    engine: Engine
    progress: Progress
    reads: Reads
    namespace: str = "default"
    projectors: list[Projector] = field(default_factory=list)

    def begin(
        self, command: object, *, key: str | None = None, namespace: str | None = None
    ) -> Future[Done]:
        """Hand a command to the engine and go on."""
        return self.loop.start(self._submit(command, key, namespace or self.namespace))

    def do(self, command: object, *, key: str | None = None, namespace: str | None = None) -> Done:
        """Carry out a command. Raises what refused it."""
        return self.begin(command, key=key, namespace=namespace).result(PATIENCE_SECONDS)

    def all_at_once(
        self, commands: Sequence[object], *, key: str | None = None
    ) -> list[Done | BaseException]:
        """Submit all commands in one go; what became of each."""

        async def submit() -> list[Done | BaseException]:
            return await asyncio.gather(
                *(self._submit(command, key, self.namespace) for command in commands),
                return_exceptions=True,
            )

        return self.loop.run(submit())

    def ask(
        self,
        query: Callable[Concatenate[Reads, str, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """A read model's answer, after the wait for the log's head."""

        async def answer() -> T:
            return await query(self.reads, self.namespace, *args, **kwargs)

        return self.loop.run(answer())

    def open_session(self, machine_id: str = "m1", **rest: Any) -> str:
        """A new session's id."""
        given = {"project_id": "apollo", "machine_id": machine_id, **rest}
        return str(self.do(sessions.CreateSession(**given))["session_id"])

    def rows(self, *aggregates: Aggregate) -> list[NewRow]:
        """What these aggregates have recorded, as rows for the store."""
        origin = Origin(str(uuid.uuid4()), "test", "given")
        return [
            row
            for aggregate in aggregates
            for row in self.mapper.rows(aggregate.collect_events(), origin)
        ]

    def given(self, *aggregates: Aggregate) -> None:
        """Put the history of these aggregates into the store, past the engine."""
        self.store.append(self.namespace, self.rows(*aggregates))

    def replayed(self, cls: type[A], key: str) -> A:
        """The aggregate as its events alone make it."""
        aggregate = cls(id=cls.stream_id(key))
        for row in self.store.read_stream(self.namespace, aggregate.id):
            aggregate.mutate(self.mapper.event(*row[2:]))
        return aggregate

    def session(self, session_id: str) -> Session:
        """A session as its events alone make it."""
        return self.replayed(Session, session_id)

    def project(self, defined: Sequence[Definition] = DEFINITIONS) -> Projector:
        """Start another projector."""
        projector = Projector(self.url, defined, self.progress)
        projector.start()
        self.projectors.append(projector)
        return projector

    def project_late(self, defined: Sequence[Definition]) -> None:
        """Start a projector of the read models whose answers may come late."""
        projector = Projector(self.url, defined, Progress(), late=True)
        projector.start()
        self.projectors.append(projector)

    async def _submit(self, command: object, key: str | None, namespace: str) -> Done:
        outcome = await self.engine.submit(command, context(command, key, namespace))
        return done(outcome)


def context(command: object, key: str | None = None, namespace: str = "default") -> Context:
    """The context that a face would give to a command."""
    kind = type(command)
    name = NAMES.get(kind) or re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    return Context(
        namespace,
        "key-1",
        str(uuid.uuid4()),
        name,
        IdempotencyKey(f"key-1 {name} {key}", repr(command), key) if key else None,
    )


def done(outcome: Outcome) -> Done:
    """An outcome whose body was read."""
    value = orjson.loads(outcome.body) if outcome.body else {}
    return Done(value, outcome.status, outcome.position, outcome.body)


@contextmanager
def service(
    url: str,
    *,
    handlers: Mapping[type, Handler] = HANDLERS,
    projecting: bool = True,
    stall_threshold_ms: int = 180_000,
) -> Iterator[Service]:
    """A process of the service on this database, for the length of the block."""
    loop = Loop()
    store = EventStore.at(url)
    mapper = Mapper(EVENTS)
    engine = Engine(store, mapper, handlers, Policy(stall_threshold_ms))
    progress = Progress()
    reads = Reads(url, progress, DEFINITIONS, stall_threshold_ms=stall_threshold_ms, size=4)
    running = Service(url, loop, store, mapper, engine, progress, reads)
    engine.start()
    try:
        loop.run(reads.open())
        if projecting:
            running.project()
        yield running
    finally:
        engine.stop()
        for projector in running.projectors:
            projector.stop()
        loop.run(reads.close())
        store.close()
        loop.close()
