"""The composition root: the only place that constructs; start and stop in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta

from application.engine.engine import Engine
from application.engine.serving import ServingRecord
from application.engine.unit_of_work import Context, Outcome, Policy
from application.eventstore import connect
from application.eventstore.mapper import Mapper
from application.eventstore.store import EventStore
from application.past import Past
from application.registry import EVENTS, HANDLERS
from interfaces import telemetry
from interfaces.access.auth import ApiKeys
from interfaces.host import memory, postgres_keeper
from interfaces.host.jobs import Jobs
from interfaces.host.presence import Presence
from interfaces.host.settings import Settings
from interfaces.http.app import App
from interfaces.http.doorkeeper import Limits
from interfaces.operations.following import Followers
from projections import DEFINITIONS
from projections.kernel.progress import Progress
from projections.kernel.projector import Projector
from projections.kernel.reads import Reads

READ_CONNECTIONS = 8
# How long a shutdown waits for requests that are being answered. Of a database that does not answer
# they are refused a little earlier; and so much later nothing waits for it any more.
GRACE_SECONDS = 30
REFUSE_SECONDS = 25.0
LET_GO_SECONDS = 3.0


class Service:
    """A process of the service, on a database whose schema is up to date."""

    def __init__(self, settings: Settings, url: str, keys: ApiKeys) -> None:
        self.keys = keys
        self.hosts = settings.hosts
        self.limits = limits_of(settings)
        self.stall_threshold_ms = settings.stall_threshold_ms
        self.instance_stale_seconds = settings.instance_stale_seconds
        # The writer's alone: whatever else is asked has connections of its own.
        self._store = EventStore.at(url)
        self._jobs_store = EventStore.at(url, size=2, checked=True)
        mapper = Mapper(EVENTS)
        policy = Policy(
            stall_threshold_ms=settings.stall_threshold_ms,
            instance_stale_seconds=settings.instance_stale_seconds,
            claim_stale_seconds=settings.claim_stale_seconds,
            instance_types=settings.instance_types,
        )
        serving = ServingRecord(EventStore.at(url, size=1), settings.serving_tolerance_seconds)
        self._engine = Engine(self._store, mapper, HANDLERS, policy, serving)
        self._presence = Presence(serving, self._engine)
        self.history = Past(url, mapper)
        self.progress = Progress()
        self._projectors = (
            Projector(url, DEFINITIONS, self.progress),
            Projector(url, DEFINITIONS, Progress(), late=True),
        )
        self.reads = Reads(
            url,
            self.progress,
            DEFINITIONS,
            stall_threshold_ms=settings.stall_threshold_ms,
            instance_stale_seconds=settings.instance_stale_seconds,
            claim_stale_seconds=settings.claim_stale_seconds,
            size=READ_CONNECTIONS,
        )
        self.followers = Followers(self.reads, self.progress)
        self.sweeps = Jobs(
            self._engine,
            self.reads,
            self._jobs_store,
            sweep_seconds=settings.sweep_seconds,
            passed_on_seconds=settings.passed_on_seconds,
            retention=timedelta(days=settings.retention_days),
        )

    @property
    def absent_seconds(self) -> float:
        """Seconds for which the database has been unreachable (:class:`Presence`)."""
        return self._presence.absent_seconds

    @property
    def dead_letters(self) -> int:
        """How many events the read models could not fold (:mod:`~projections.dead_letters`)."""
        return sum(projector.dead_letters for projector in self._projectors)

    async def submit(self, command: object, context: Context) -> Outcome:
        """Carry out a command (:meth:`application.engine.engine.Engine.submit`)."""
        return await self._engine.submit(command, context)

    async def submit_all(
        self, commands: Sequence[tuple[object, Context]]
    ) -> list[Outcome | BaseException]:
        """Carry out many commands (:meth:`application.engine.engine.Engine.submit_all`)."""
        return await self._engine.submit_all(commands)

    async def start(self) -> None:
        """Start the writer, the projector, the reads and the schedule."""
        memory.tune()
        self._engine.start()
        for projector in self._projectors:
            projector.start()
        await self.reads.open()
        self.sweeps.start()
        await self._presence.start()

    def closing(self) -> None:
        """Call when a shutdown begins: waiting requests are answered before it ends."""
        asyncio.get_running_loop().call_later(REFUSE_SECONDS, self._engine.give_up)

    async def stop(self) -> None:
        """Finish the commands that were accepted, then end everything else.

        A database that does not answer is not waited for: what is committed is safe with it, and
        whoever was not answered is refused.
        """
        letting_go = threading.Timer(LET_GO_SECONDS, connect.let_go)
        letting_go.daemon = True
        letting_go.start()
        await self.sweeps.stop()
        await asyncio.to_thread(self._engine.stop, LET_GO_SECONDS)
        await asyncio.gather(
            self._presence.stop(),
            self.reads.close(),
            *map(
                asyncio.to_thread,
                (
                    *(projector.stop for projector in self._projectors),
                    self.history.close,
                    self._jobs_store.close,
                    self._store.close,
                ),
            ),
        )
        letting_go.cancel()


def limits_of(settings: Settings) -> Limits:
    """What a connection may do, of this process's settings."""
    return Limits(
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies,
        header_seconds=settings.header_timeout_seconds,
        body_seconds=settings.body_timeout_seconds,
        write_seconds=settings.write_timeout_seconds,
        idle_seconds=settings.idle_timeout_seconds,
    )


def application(settings: Settings) -> App:
    """The application for settings that name a database and keys."""
    assert settings.database_url is not None
    assert settings.api_keys is not None
    postgres_keeper.explain(settings.database_url, settings.data_dir)
    return App(Service(settings, settings.database_url, settings.api_keys))


def worker() -> App:
    """The application of one worker process of several; its environment tells all."""
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    return application(settings)
