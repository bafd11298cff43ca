"""Agents of one namespace: what they do over HTTP, and what they did before a test began."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from application.eventstore.mapper import Mapper, Origin
from application.eventstore.store import EventStore
from application.registry import EVENTS
from domain.aggregate import Aggregate
from domain.instances.instance import Instance
from tests.acceptance.past import claimed
from tests.acceptance.serving import Api, Json, ok

_MAPPER = Mapper(EVENTS)


class Fleet:
    """Speaks for all agents of the client's namespace."""

    def __init__(self, api: Api, database_url: str | None) -> None:
        assert database_url is not None
        self.api = api
        self._url = database_url

    def register(self, project: str = "odin", instance_type: str = "PS", **fields: Any) -> Json:
        """A new instance."""
        return ok(self.ask(project, instance_type, **fields), 201)

    def ask(self, project: object = "odin", instance_type: object = "PS", **fields: Any) -> Any:
        """The reply to a registration."""
        body = {"project": project, "instance_type": instance_type, **fields}
        return self.api.post("/api/instances", json=body)

    def id(self, **fields: Any) -> str:
        """A new instance's id."""
        return str(self.register(**fields)["instance_id"])

    def child_of(self, parent_id: str, scope: str, **fields: Any) -> str:
        """The id of a new instance below another."""
        return self.id(parent_id=parent_id, scope=scope, **fields)

    def get(self, instance_id: str) -> Json:
        """The instance as it reads now."""
        found = ok(self.api.get(f"/api/instances/{instance_id}"))
        assert found["match"] == "exact"
        instance: Json = found["instance"]
        return instance

    def listed(self, **query: Any) -> Json:
        """The list."""
        return ok(self.api.get("/api/instances", params=query))

    def beat(self, instance_id: str, **said: Any) -> Json:
        """The reply to a heartbeat."""
        return ok(self.api.post(f"/api/instances/{instance_id}/heartbeat", json=said))

    def close(self, instance_id: str, **fields: Any) -> Json:
        """The closed instance."""
        return ok(self.api.post(f"/api/instances/{instance_id}/close", json=fields))

    def move(self, instance_id: str, parent_id: object) -> httpx.Response:
        """The reply to giving an instance another parent."""
        body = {"parent_id": parent_id}
        return self.api.put(f"/api/instances/{instance_id}/parent", json=body)

    def emit(self, instance_id: str, event_type: str, data: object = None, **body: Any) -> Json:
        """The reply to an event."""
        return ok(self.offer(instance_id, event_type, {} if data is None else data, **body), 201)

    def offer(
        self, instance_id: str, event_type: object, data: object, **body: Any
    ) -> httpx.Response:
        """The reply to an event that may be refused."""
        content = {"event_type": event_type, "event_data": data, **body}
        return self.api.post(f"/api/instances/{instance_id}/events", json=content)

    def find(self, instance_id: str, **query: Any) -> Json:
        """A page of the instance's events."""
        return ok(self.api.get(f"/api/instances/{instance_id}/events", params=query))

    def events(self, instance_id: str, **query: Any) -> list[Json]:
        """The instance's events."""
        found: list[Json] = self.find(instance_id, **query)["events"]
        return found

    def types(self, instance_id: str, **query: Any) -> list[str]:
        """The types of the instance's events."""
        return [event["event_type"] for event in self.events(instance_id, **query)]

    def replay(self, instance_id: str, **query: Any) -> Json:
        """The instance's state at one of its events."""
        return ok(self.api.get(f"/api/instances/{instance_id}/replay", params=query))

    def brief(self, instance_id: str) -> Json:
        """How things stand with the instance, for whoever resumes it."""
        return ok(self.api.get(f"/api/instances/{instance_id}/resume"))

    def resume(self, instance_id: str, **fields: Any) -> httpx.Response:
        """The reply to resuming an instance."""
        return self.api.post(f"/api/instances/{instance_id}/resume", json=fields)

    def registry(self, view: str, **query: Any) -> Json:
        """One of the registry's views."""
        return ok(self.api.get(f"/api/v1/registry/{view}", params=query))

    def discover(self, **criteria: Any) -> list[str]:
        """The ids of the instances that meet the criteria."""
        found = self.registry("discover", **criteria)["instances"]
        return [instance["instance_id"] for instance in found]

    def sweep(self) -> int:
        """How many instances a sweep finds silent now."""
        return int(ok(self.api.post("/api/sessions/detect-failures"))["instances_stale"])

    def silent(self, ago: timedelta, hash: str, items: Iterable[str] = (), **fields: Any) -> str:
        """The id of an instance that registered then and has not been heard of since.

        It claimed the ``items`` at once.
        """
        project, kind = fields.pop("project", "odin"), fields.pop("instance_type", "PS")
        instance = Instance(id=Instance.stream_id(f"{project}-{kind}-{hash}"))
        at = datetime.now(UTC) - ago
        instance.register(
            at,
            project=project,
            project_name=project,
            instance_type=kind,
            **{"scope": "project", **fields},
        )
        parents = [self._replayed(fields["parent_id"])] if "parent_id" in fields else []
        for parent in parents:
            parent.add_child(at, instance.key)
        self.write(instance, *parents, *claimed(instance, items, at))
        return instance.key

    def _replayed(self, instance_id: str) -> Instance:
        """An instance as its events make it."""
        instance = Instance(id=Instance.stream_id(instance_id))
        store = EventStore.at(self._url, size=1)
        try:
            for row in store.read_stream(self.api.namespace, instance.id):
                instance.mutate(_MAPPER.event(*row[2:]))
        finally:
            store.close()
        return instance

    def write(self, *aggregates: Aggregate) -> None:
        """Put what these recorded straight into the store, with the times it had."""
        events = [event for aggregate in aggregates for event in aggregate.collect_events()]
        origin = Origin(str(uuid4()), "history", "instance_register")
        store = EventStore.at(self._url, size=1)
        try:
            store.append(self.api.namespace, _MAPPER.rows(events, origin))
        finally:
            store.close()
