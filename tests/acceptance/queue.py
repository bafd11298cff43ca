"""The work queue of one namespace: who claims what, and what comes of it."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from tests.acceptance.serving import Api, Json, gone, ok

# A session or an instance, as some reply described it.
Holder = Json


def who(holder: Holder) -> Json:
    """How a request names its holder."""
    kind = "session_id" if "session_id" in holder else "instance_id"
    return {kind: holder[kind]}


def name_of(holder: Holder) -> str:
    """The id of a session or an instance."""
    (named,) = who(holder).values()
    return str(named)


class Queue:
    """Speaks of claims and work items with the client's key."""

    def __init__(self, api: Api) -> None:
        self.api = api

    # Claims

    def ask(self, item_id: object, holder: Holder, **fields: object) -> httpx.Response:
        """The reply to a claim."""
        return self.api.post("/api/claims", json={"item_id": item_id, **who(holder), **fields})

    def claim(self, item_id: str, holder: Holder, **fields: object) -> Json:
        """A claim that must be granted."""
        return ok(self.ask(item_id, holder, **fields), 201)

    def claims(self, **query: object) -> list[Json]:
        """What is held."""
        found: list[Json] = ok(self.api.get("/api/claims", params=query))["claims"]  # type: ignore[arg-type]
        return found

    def get_claim(self, item_id: str) -> Json:
        """Who holds an item."""
        return ok(self.api.get(f"/api/claims/{quoted(item_id)}"))

    def release(self, item_id: str, holder: Holder, **fields: object) -> httpx.Response:
        """The reply to a release."""
        path = f"/api/claims/{quoted(item_id)}/release"
        return self.api.post(path, json={**who(holder), **fields})

    def verify(self, item_id: str, fence: object) -> httpx.Response:
        """The reply to a guard's question."""
        return self.api.post(f"/api/claims/{quoted(item_id)}/verify", json={"fence": fence})

    # Work items

    def offer(self, item_id: object, **fields: object) -> httpx.Response:
        """The reply to listing an item."""
        return self.api.post("/api/work-items", json={"item_id": item_id, **fields})

    def add(self, item_id: str, **fields: object) -> Json:
        """A new item."""
        return ok(self.offer(item_id, **fields), 201)

    def items(self, **query: object) -> list[Json]:
        """The queue."""
        found: list[Json] = ok(self.api.get("/api/work-items", params=query))["work_items"]  # type: ignore[arg-type]
        return found

    def item(self, item_id: str) -> Json:
        """One item as it reads now."""
        return ok(self.api.get(f"/api/work-items/{quoted(item_id)}"))

    def next(self, holder: Holder, **fields: object) -> str | None:
        """The id of the next item that a holder is given, if there is one."""
        reply = self.api.post("/api/work-items/claim-next", json={**who(holder), **fields})
        if reply.status_code == 204:
            gone(reply)
            return None
        return str(ok(reply, 201)["item_id"])

    def complete(self, item_id: str, holder: Holder, **fields: object) -> httpx.Response:
        """The reply to "done"."""
        path = f"/api/work-items/{quoted(item_id)}/complete"
        return self.api.post(path, json={**who(holder), **fields})

    # Both sides

    def held_by(self, holder: Holder) -> dict[str, int]:
        """What a holder believes to hold, with the fences, by its own stream."""
        kind = "session" if "session_id" in holder else "instance"
        state = ok(self.api.get(f"/api/streams/{kind}-{name_of(holder)}/replay"))["final_state"]
        held: dict[str, int] = state["held"]
        return held

    def assert_agrees(self, *holders: Holder) -> None:
        """Claims, items and these holders, who are all that there are, tell the same."""
        claims = {claim["item_id"]: claim for claim in self.claims(limit=200)}
        for item in self.items(limit=200):
            claim = claims.get(item["item_id"])
            assert item["is_working_on"] is (claim is not None), item
            assert (item["status"] == "claimed") is (claim is not None), item
            for field in ("session_id", "instance_id"):
                assert item[f"active_{field}"] == (claim and claim[field]), item
            if claim is not None:
                assert item["fence"] == claim["fence"]
        believed = {
            item_id: (name_of(holder), fence)
            for holder in holders
            for item_id, fence in self.held_by(holder).items()
            if not item_id.startswith("@")
        }
        assert believed == {i: (claim["holder"], claim["fence"]) for i, claim in claims.items()}


def quoted(item_id: str) -> str:
    """An item's id as part of a path."""
    return quote(item_id, safe="")
