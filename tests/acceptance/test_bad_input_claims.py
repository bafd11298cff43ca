"""What claims and work items refuse: the right status, a code, the field; nothing stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import httpx
import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.queue import Queue, who
from tests.acceptance.serving import Api, Json, Server, gone, invalid, refused

Ask = Callable[[Json], httpx.Response]


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


@pytest.fixture
def session(api: Api) -> Json:
    return api.session()


@pytest.fixture
def agent(fleet: Fleet) -> Json:
    return fleet.register()


@pytest.fixture(autouse=True)
def nothing_is_stored(
    queue: Queue, session: Json, agent: Json, stored: Callable[[], int]
) -> Iterator[None]:
    """Whatever a test here sends, the store has no more and no fewer events afterwards."""
    queue.claim("held", session)
    queue.add("open")
    before = stored()
    yield
    assert stored() == before


@pytest.fixture(params=["claim", "release", "complete", "claim-next"])
def ask(api: Api, request: pytest.FixtureRequest) -> Ask:
    """Each command that comes on behalf of a holder."""
    path, fixed = {
        "claim": ("/api/claims", {"item_id": "new"}),
        "release": ("/api/claims/held/release", {}),
        "complete": ("/api/work-items/held/complete", {}),
        "claim-next": ("/api/work-items/claim-next", {}),
    }[request.param]
    return lambda body: api.post(path, json={**fixed, **body})


# Holders


def test_no_holder(ask: Ask) -> None:
    for body in ({}, {"session_id": None}, {"session_id": None, "instance_id": None}):
        refusal = invalid(ask(body), "session_id")
        assert "instance_id" in refusal["errors"][0]["message"]


def test_two_holders(ask: Ask, session: Json, agent: Json) -> None:
    both = {**who(session), **who(agent)}

    invalid(ask(both), "session_id", "instance_id")


@pytest.mark.parametrize(
    "session_id", ["00000000-0000-4000-8000-000000000000", "nobody", "@place/p/m/"]
)
def test_an_unknown_session(ask: Ask, session_id: str) -> None:
    body = refused(ask({"session_id": session_id}), 400, "unknown_session")

    assert [error["field"] for error in body["errors"]] == ["session_id"]


def test_an_unknown_instance(ask: Ask) -> None:
    body = refused(ask({"instance_id": "odin-PS-000000"}), 400, "unknown_instance")

    assert [error["field"] for error in body["errors"]] == ["instance_id"]


@pytest.mark.parametrize("field", ["session_id", "instance_id"])
@pytest.mark.parametrize("value", ["", "  ", "x" * 201, 7, True, ["s"], {}])
def test_a_holder_that_is_no_id(ask: Ask, field: str, value: object) -> None:
    invalid(ask({field: value}), field)


def test_a_field_that_is_none(ask: Ask, session: Json) -> None:
    invalid(ask({**who(session), "force": True}), "force")


class TestEnded:
    """Holders that have ended before the test's events are counted."""

    @pytest.fixture
    def ended(self, api: Api) -> Json:
        session = api.session()
        api.fail(session["session_id"])
        return session

    @pytest.fixture
    def deleted(self, api: Api) -> Json:
        session = api.session()
        gone(api.delete(f"/api/sessions/{session['session_id']}"))
        return session

    @pytest.fixture
    def closed(self, fleet: Fleet) -> Json:
        agent = fleet.register()
        fleet.close(agent["instance_id"])
        return agent

    @pytest.fixture(autouse=True)
    def nothing_is_stored(
        self,
        ended: Json,
        deleted: Json,
        closed: Json,
        nothing_is_stored: None,
        stored: Callable[[], int],
    ) -> Iterator[None]:
        before = stored()
        yield
        assert stored() == before

    def test_an_ended_holder_claims_nothing(
        self, queue: Queue, ended: Json, deleted: Json, closed: Json
    ) -> None:
        for item in ("new", "open", "held"):
            refused(queue.ask(item, ended), 409, "session_ended")
            refused(queue.ask(item, closed, takeover=True), 409, "instance_closed")
            refused(queue.ask(item, deleted), 400, "unknown_session")
        for holder, status, code in (
            (ended, 409, "session_ended"),
            (closed, 409, "instance_closed"),
            (deleted, 400, "unknown_session"),
        ):
            reply = queue.api.post("/api/work-items/claim-next", json=who(holder))
            refused(reply, status, code)


# Items


@pytest.mark.parametrize("item_id", ["", "  ", "\t", "x" * 201, "@global", "@", 7, True, None, []])
def test_an_item_s_id_that_is_none(queue: Queue, session: Json, item_id: object) -> None:
    invalid(queue.ask(item_id, session), "item_id")
    invalid(queue.offer(item_id), "item_id")


def test_an_item_without_an_id(api: Api, session: Json) -> None:
    invalid(api.post("/api/claims", json=who(session)), "item_id")
    invalid(api.post("/api/work-items", json={"title": "One"}), "item_id")


def test_an_item_with_two_ids(api: Api, session: Json) -> None:
    both = {"item_id": "a", "sd_id": "b"}

    invalid(api.post("/api/claims", json={**both, **who(session)}), "sd_id")
    invalid(api.post("/api/work-items", json=both), "sd_id")


@pytest.mark.parametrize("takeover", ["yes", 1, None])
def test_a_takeover_that_is_neither_true_nor_false(
    queue: Queue, session: Json, takeover: object
) -> None:
    invalid(queue.ask("new", session, takeover=takeover), "takeover")


@pytest.mark.parametrize("field", ["hostname", "tty", "codebase"])
@pytest.mark.parametrize("value", ["", "  ", "x" * 1_001, 7])
def test_owner_details_that_are_no_names(
    queue: Queue, session: Json, field: str, value: object
) -> None:
    invalid(queue.ask("new", session, **{field: value}), field)


@pytest.mark.parametrize("priority", [True, False, "5", 1.5, 2**31, -(2**31) - 1, [1]])
def test_a_priority_that_is_no_integer(queue: Queue, priority: object) -> None:
    invalid(queue.offer("new", priority=priority), "priority")


@pytest.mark.parametrize("field", ["title", "track"])
@pytest.mark.parametrize("value", ["", " ", "x" * 1_001, 7])
def test_a_description_that_is_none(queue: Queue, field: str, value: object) -> None:
    invalid(queue.offer("new", **{field: value}), field)


def test_more_than_a_hundred_dependencies(queue: Queue) -> None:
    many = [f"item-{number}" for number in range(101)]

    invalid(queue.offer("new", depends_on=many), "depends_on")


@pytest.mark.parametrize(
    ("depends_on", "field"),
    [
        ("SD-1", "depends_on"),
        ({"SD-1": True}, "depends_on"),
        (["ok", ""], "depends_on.1"),
        (["@global"], "depends_on.0"),
        ([7], "depends_on.0"),
        ([None], "depends_on.0"),
        (["x" * 201], "depends_on.0"),
    ],
)
def test_dependencies_that_are_no_items(queue: Queue, depends_on: object, field: str) -> None:
    invalid(queue.offer("new", depends_on=depends_on), field)


@pytest.mark.parametrize("status", ["done", "", "OPEN"])
def test_a_list_of_a_status_that_there_is_not(api: Api, status: str) -> None:
    invalid(api.get("/api/work-items", params={"status": status}), "status")


def test_a_list_of_the_claims_of_two_holders(api: Api) -> None:
    query = {"session_id": "a", "instance_id": "b"}

    invalid(api.get("/api/claims", params=query), "instance_id")


@pytest.mark.parametrize("length", [1, 2, 5])
class TestCircles:
    """Items that would wait for each other in a circle."""

    @pytest.fixture
    def circle(self, queue: Queue, length: int) -> list[str]:
        """Items of which each waits for the next; the last one waits for nothing yet."""
        items = [f"round-{number}" for number in range(length)]
        for item, following in pairwise(items):
            queue.add(item, depends_on=[following])
        queue.add(items[-1], title="last")
        return items

    @pytest.fixture(autouse=True)
    def nothing_is_stored(
        self, circle: list[str], nothing_is_stored: None, stored: Callable[[], int]
    ) -> Iterator[None]:
        before = stored()
        yield
        assert stored() == before

    def test_a_circle_is_refused_and_shown(self, queue: Queue, circle: list[str]) -> None:
        reply = queue.offer(circle[-1], depends_on=["open", circle[0]])

        body = refused(reply, 400, "dependency_cycle")
        assert [error["field"] for error in body["errors"]] == ["depends_on"]
        assert body["details"]["cycle"] == [circle[-1], *circle]
        assert " → ".join([circle[-1], *circle]) in body["message"]


# Fences


@pytest.mark.parametrize("fence", [0, -1, "1", True, 1.5, None, 2**53 + 1, []])
def test_a_fence_that_is_no_positive_integer(
    api: Api, queue: Queue, session: Json, fence: object
) -> None:
    path = f"/api/sessions/{session['session_id']}/heartbeat"
    claim = {"item_id": "held", "fence": fence}

    invalid(queue.verify("held", fence), "fence")
    invalid(api.post(path, json={"claim": claim}), "claim.fence")
    if fence is not None:
        invalid(queue.release("held", session, fence=fence), "fence")
        invalid(queue.complete("held", session, fence=fence), "fence")


@pytest.mark.parametrize(
    ("claim", "field"),
    [
        ("held", "claim"),
        ([], "claim"),
        ({}, "claim.item_id"),
        ({"item_id": "held"}, "claim.fence"),
        ({"fence": 1}, "claim.item_id"),
        ({"item_id": "@global", "fence": 1}, "claim.item_id"),
        ({"item_id": "held", "fence": 2, "holder": "x"}, "claim.holder"),
    ],
)
def test_a_fence_that_names_no_claim(api: Api, session: Json, claim: object, field: str) -> None:
    path = f"/api/sessions/{session['session_id']}/heartbeat"
    body = refused(api.post(path, json={"claim": claim}), 400, "validation_error")

    assert field in {error["field"] for error in body["errors"]}


def test_a_question_without_a_fence(api: Api) -> None:
    invalid(api.post("/api/claims/held/verify", json={}), "fence")


# Others' claims


def test_a_release_by_another(queue: Queue, session: Json, agent: Json) -> None:
    body = refused(queue.release("held", agent), 409, "not_holder")

    assert body["details"]["claimed_by"] == session["session_id"]
    assert body["details"]["heartbeat_age_human"].endswith("ago")
    assert session["session_id"] in body["message"]


def test_a_completion_by_another(queue: Queue, session: Json, agent: Json) -> None:
    body = refused(queue.complete("held", agent), 409, "not_holder")

    assert body["details"]["claimed_by"] == session["session_id"]


def test_a_completion_of_what_nobody_holds(queue: Queue, session: Json) -> None:
    body = refused(queue.complete("open", session), 409, "not_holder")

    assert body["details"] == {"item_id": "open", "claimed_by": None, "holder_kind": None}


def test_what_there_is_not(api: Api, queue: Queue, session: Json) -> None:
    refused(queue.complete("unknown", session), 404, "work_item_not_found")
    refused(queue.release("unknown", session), 404, "claim_not_found")
    refused(queue.verify("unknown", 1), 404, "claim_not_found")
    refused(api.get("/api/work-items/unknown"), 404, "work_item_not_found")
    refused(api.get("/api/claims/unknown"), 404, "claim_not_found")
