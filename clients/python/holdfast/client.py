"""The client: typed calls to one service."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, cast

from holdfast.api import (
    Claims,
    History,
    Instances,
    Machines,
    Registry,
    Sessions,
    Tasks,
    WorkItems,
)
from holdfast.delivery import LOST_ORIGIN, Delivery
from holdfast.endings import endings
from holdfast.errors import HoldfastError, NotFound, Unauthorized, Unavailable
from holdfast.heartbeat import INTERVAL_SECONDS, OnEnded, OnLostClaims
from holdfast.managed import ManagedInstance, ManagedSession
from holdfast.names import misnamed
from holdfast.outage import Outage
from holdfast.proof import proven
from holdfast.recorder import QUEUE_SECONDS, Recorder
from holdfast.refusals import Refusals
from holdfast.request import WRITES, Request, Write
from holdfast.settings import RUN_OVER, Settings, warn_of_clear_text
from holdfast.spool import Spool
from holdfast.transport import (
    DEFAULT_PATIENCE_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Transport,
)
from holdfast.types import Beats, Json

log = logging.getLogger("holdfast.client")


class Client:
    """Speaks to the service for any number of threads. Calls raise :class:`HoldfastError`.

    Without arguments everything comes from the environment (:class:`Settings`). ``timeout`` is
    the seconds that one attempt may take, ``retries`` how often a request is tried again after
    connection errors, 429 and 502-504, and ``patience`` for how many seconds in all.

    A ``lenient`` client does not raise when a write cannot be recorded. A write that cannot be sent
    is kept on disk and sent later, in order and once; the call returns the body that it sent with
    ``unsent: True``, and placeholders for ids, which work in further calls. If the service refuses
    a write, the client logs that and returns ``refused``, the error's code. Calls that need a reply
    still raise: reads, claims (which are granted now or not at all) and recoveries.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        lenient: bool = False,
        settings: Settings | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retries: int = DEFAULT_RETRIES,
        patience: float = DEFAULT_PATIENCE_SECONDS,
    ) -> None:
        self.settings = settings or Settings.load(url=url, api_key=api_key)
        self.transport = Transport(
            self.settings.url,
            self.settings.api_key,
            timeout=timeout,
            retries=retries,
            patience=patience,
        )
        if self.settings.past_run:
            log.warning("%s (%s).", RUN_OVER, ", ".join(self.settings.past_run))
        warn_of_clear_text(self.settings)
        self.lenient = lenient
        self.outage = Outage(self.settings.shown_url)
        self.spool = Spool(self.settings.spool_dir, self.settings.url, self.settings.api_key)
        self._refusals = Refusals()
        self.delivery = Delivery(self.transport, self.spool, self.outage, self._refusals)
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        if lenient:
            _ = self.recorder
        self.sessions = Sessions(self)
        self.tasks = Tasks(self)
        self.machines = Machines(self)
        self.instances = Instances(self)
        self.registry = Registry(self)
        self.history = History(self)
        self.claims = Claims(self)
        self.work_items = WorkItems(self)
        endings.listen()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def health(self) -> Json:
        """Whether the service is healthy. Needs no API key."""
        return cast(Json, self.read(Request("GET", "/health")))

    def beat_all(self, heartbeats: Sequence[Mapping[str, Any]]) -> Beats:
        """Heartbeats of up to 1,000 sessions and instances, each ``{session_id | instance_id, …}``.

        A refused one is in the results with its error; the others are recorded. A lenient client
        that cannot send them returns an error for each, and does not keep them: the next heartbeats
        replace them.
        """
        request = Request("POST", "/api/heartbeats", {"heartbeats": [*heartbeats]})
        try:
            return cast(Beats, self.write(Write(request, deferrable=False)))
        except (Unavailable, Unauthorized) as e:
            if not self.lenient:
                raise
            error = {"code": e.code, "message": e.message}
        ids = [beat.get("instance_id") or beat.get("session_id") for beat in heartbeats]
        results: list[Json] = [{"id": an_id, "ok": False, "error": error} for an_id in ids]
        return {"results": results, "accepted": 0, "rejected": len(results)}

    def session(
        self,
        project_id: str,
        machine_id: str | None = None,
        *,
        interval: float = INTERVAL_SECONDS,
        on_lost_claims: OnLostClaims | None = None,
        on_ended: OnEnded | None = None,
        **fields: Any,
    ) -> ManagedSession:
        """A session for a ``with`` block: opened, kept alive, completed or marked failed.

        ``machine_id`` defaults to this machine. ``fields`` are those of ``sessions.create``.
        """
        return ManagedSession(
            self,
            project_id,
            machine_id,
            interval=interval,
            on_lost_claims=on_lost_claims,
            on_ended=on_ended,
            **fields,
        )

    def instance(
        self,
        project: str,
        instance_type: str = "PS",
        *,
        interval: float = INTERVAL_SECONDS,
        on_lost_claims: OnLostClaims | None = None,
        on_ended: OnEnded | None = None,
        **fields: Any,
    ) -> ManagedInstance:
        """An instance for a ``with`` block: registered, kept alive, closed.

        ``fields`` are those of ``instances.register``.
        """
        return ManagedInstance(
            self,
            project,
            instance_type,
            interval=interval,
            on_lost_claims=on_lost_claims,
            on_ended=on_ended,
            **fields,
        )

    @property
    def recorder(self) -> Recorder:
        """Records writes without raising. A strict client uses it for final reports only."""
        with self._lock:
            if self._recorder is None:
                self._recorder = Recorder(
                    self.transport, self.spool, self.outage, self.delivery, self._refusals
                )
            return self._recorder

    def read(self, request: Request) -> Any:
        """The body of the reply to a request that changes nothing."""
        return self.send(request)

    def write(self, write: Write) -> Any:
        """The body of the reply to a write, or what a lenient client returns in its place."""
        write = write._replace(request=self._proven(write.request))
        wrong = misnamed(write)
        if wrong is not None and not (self.lenient and write.deferrable):
            raise wrong
        if wrong is not None:
            return self.recorder.refuse(write, wrong)
        if self.lenient and write.deferrable:
            return self.recorder.record(write)
        if self.lenient:
            # The service's decision may depend on writes that were kept before.
            self.delivery.flush(QUEUE_SECONDS, patient=False)
        return self.send(write.request)

    def send(self, request: Request, *, retries: int | None = None) -> Any:
        """The body of the reply to a request that is sent now or not at all."""
        request = self._proven(request)
        resolved = self.spool.resolved(request)
        if resolved is None and self.lenient:
            # The service may be back without anybody having noticed.
            self.delivery.flush(QUEUE_SECONDS, patient=False)
            resolved = self.spool.resolved(request)
        if resolved is None and not self.spool.is_awaited(request):
            # Unless it has just been created, it never will be.
            resolved = self.spool.resolved(request)
            if resolved is None:
                raise NotFound(
                    "It was never recorded: the service refused it.", code=LOST_ORIGIN.code
                )
        if resolved is None:
            raise Unavailable(
                "It is not recorded yet: the service could not be reached.", code="not_recorded_yet"
            )
        try:
            body = self.transport.send(resolved, retries=retries).body
        except (Unavailable, Unauthorized) as e:
            if self.lenient:
                self.outage.begin(e)
                self.outage.tell()
            raise
        except HoldfastError:
            self._hear()
            raise
        self._hear()
        return body

    def _proven(self, request: Request) -> Request:
        """The request with the fence of the run around this process, if it speaks for that run."""
        if request.method not in WRITES or not self.settings.fences:
            return request
        return proven(request, self._fence_of)

    def _fence_of(self, an_id: str) -> int | None:
        fences = self.settings.fences
        real = self.spool.real
        return next((f for one, f in fences.items() if an_id in (one, real(one))), None)

    def _hear(self) -> None:
        """Note that the service answered."""
        self.outage.end()
        if self.lenient:
            self.recorder.look()

    def flush(self, timeout: float = 10.0) -> bool:
        """Send kept writes for at most ``timeout`` seconds; returns whether none is left."""
        return self.delivery.flush(timeout)

    def close(self) -> None:
        """Close the connections. Kept writes stay on disk, and the next client sends them."""
        if self._recorder is not None:
            self._recorder.close()
        self.transport.close()
