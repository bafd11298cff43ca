"""Callers that quarrel over a handful of items, and note what they did and were told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

import httpx

from tests.lin.history import NEVER, Operation, Sign, Verb
from tests.lin.model import ENDED

API_KEY = "a-key-for-the-linearizability-test"
ITEMS = tuple(f"item-{number}" for number in range(6))
HOLDERS = 16
# A keyed call is repeated until it is answered; this long without an answer is a finding.
PATIENCE_SECONDS = 60.0
TIMEOUT_SECONDS = 1.0
BACKOFF_SECONDS = 0.05
UNSURE = frozenset({503, 504})
# Of calls without an answer only these may matter to an item.
CHANGING = frozenset({"claim", "take over", "release", "end"})

Json = dict[str, Any]
Kind = Literal["session", "instance"]


@dataclass(eq=False, slots=True)
class Holder:
    """A session or an instance, which anybody may speak for."""

    kind: Kind
    id: str
    # Nothing is sent that would be a sign of life before then.
    silent_until: float = 0.0

    @property
    def path(self) -> str:
        return f"/api/{self.kind}s/{self.id}"

    @property
    def body(self) -> Json:
        return {f"{self.kind}_id": self.id}


@dataclass(slots=True)
class World:
    """What all callers know, and what came of it all."""

    urls: Sequence[str]
    stale_seconds: float
    # By how much clocks may disagree.
    slack: float
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    holders: list[Holder] = field(default_factory=list)
    ended: list[Holder] = field(default_factory=list)
    # The last holder and fence that somebody saw of each item.
    seen: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    misdated: list[str] = field(default_factory=list)
    # Whether for a moment no process of the service was there.
    was_absent: bool = False

    @property
    def calls(self) -> int:
        """How many were recorded."""
        return len(self.operations) + len(self.signs)


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a call ended: its times, and the last reply, unless none came."""

    invoked: float
    # When the last attempt began.
    again: float
    answered: float
    attempts: int
    reply: httpx.Response | None


class Caller(threading.Thread):
    """One caller: says something on behalf of any holder, notes the answer, goes on."""

    def __init__(self, world: World, seed: str, favourite: int) -> None:
        super().__init__(name=f"caller-{seed}")
        self.error: BaseException | None = None
        self._world = world
        self._random = random.Random(seed)
        # Most go to one process, so that not all of them wait for the one that is paused.
        self._favourite = favourite

    def run(self) -> None:
        try:
            with httpx.Client(
                timeout=TIMEOUT_SECONDS, headers={"X-API-Key": API_KEY}, trust_env=False
            ) as self._http:
                while not self._world.stopping.is_set():
                    self._something()
        except Exception as e:
            self.error = e

    # What to do

    def _something(self) -> None:
        holder = self._holder()
        item = self._random.choice(ITEMS)
        last_holder, fence = self._world.seen.get(item, (None, 1))
        if self._random.random() < 0.2:
            fence = max(1, fence - self._random.randint(1, 3))
        lot = self._random.random()
        if lot < 0.20:
            if time.monotonic() > holder.silent_until:
                self._beat(holder, (item, fence) if self._random.random() < 0.3 else None)
        elif lot < 0.45:
            self._claim("claim", holder, item)
        elif lot < 0.60:
            self._claim("take over", holder, item)
        elif lot < 0.72:
            owner = self._known(last_holder) if self._random.random() < 0.7 else None
            self._release(owner or holder, item, fence)
        elif lot < 0.81:
            self._verify(item, fence)
        elif lot < 0.90:
            self._write(holder, item, fence)
        elif lot < 0.97:
            self._read(item)
        elif lot < 0.98:
            self._end(holder)
        else:
            seconds = self._world.stale_seconds * self._random.uniform(1.0, 2.5)
            holder.silent_until = time.monotonic() + seconds

    def _holder(self) -> Holder:
        world = self._world
        with world.lock:
            if world.ended and self._random.random() < 0.02:
                return self._random.choice(world.ended)
            if len(world.holders) >= HOLDERS:
                return self._random.choice(world.holders)
        return self._open()

    def _known(self, holder_id: str | None) -> Holder | None:
        with self._world.lock:
            return next((h for h in self._world.holders if h.id == holder_id), None)

    # Holders

    def _open(self) -> Holder:
        """A new holder, in a place of its own."""
        place = f"p{uuid4().hex[:12]}"
        kind: Kind = self._random.choice(("session", "instance"))
        body = (
            {"project_id": place, "machine_id": place}
            if kind == "session"
            else {"project": place, "instance_type": "PS"}
        )
        answer = self._call("POST", f"/api/{kind}s", body, is_keyed=True)
        if answer.reply is None or answer.reply.status_code != 201:
            raise AssertionError(f"no new {kind}: {answer}")
        holder = Holder(kind, answer.reply.json()[f"{kind}_id"])
        sign = Sign(holder=holder.id, invoked=answer.invoked, answered=answer.answered)
        with self._world.lock:
            self._world.holders.append(holder)
            self._world.signs.append(sign)
            self._world.counts[f"{kind}s"] += 1
        return holder

    def _beat(self, holder: Holder, under: tuple[str, int] | None) -> None:
        """A heartbeat, perhaps under a fence: then it is a fenced write as well."""
        body = {"claim": {"item_id": under[0], "fence": under[1]}} if under else {}
        answer = self._call("POST", f"{holder.path}/heartbeat", body)
        if under:
            self._note("write", answer, under[0], holder, under[1])
        if answer.reply is None or answer.attempts > 1 or answer.reply.is_success:
            certain = answer.reply is not None and answer.reply.is_success
            sign = Sign(
                holder=holder.id,
                invoked=answer.invoked,
                answered=answer.answered if certain else NEVER,
                is_certain=certain,
            )
            with self._world.lock:
                self._world.signs.append(sign)
                self._world.counts["heartbeats"] += 1
        if answer.reply is not None and answer.reply.is_success:
            self._check_date("heartbeat", answer, answer.reply.json()["last_heartbeat"])

    def _end(self, holder: Holder) -> None:
        world = self._world
        with world.lock:
            if holder in world.holders:
                world.holders.remove(holder)
                world.ended.append(holder)
                del world.ended[:-HOLDERS]
        if holder.kind == "session":
            body: Json = {"error_message": "out of memory"}
            answer = self._call("POST", f"{holder.path}/mark-failed", body)
        else:
            answer = self._call("POST", f"{holder.path}/close", {})
        for item in ITEMS:
            self._note("end", answer, item, holder)

    # Claims

    def _claim(self, verb: Verb, holder: Holder, item: str) -> None:
        body = {"item_id": item, "takeover": verb == "take over", **holder.body}
        self._note(verb, self._call("POST", "/api/claims", body), item, holder)

    def _release(self, holder: Holder, item: str, fence: int) -> None:
        given = fence if self._random.random() < 0.5 else None
        body = {**holder.body, **({} if given is None else {"fence": given})}
        answer = self._call("POST", f"/api/claims/{item}/release", body)
        self._note("release", answer, item, holder, given)

    def _verify(self, item: str, fence: int) -> None:
        answer = self._call("POST", f"/api/claims/{item}/verify", {"fence": fence})
        self._note("verify", answer, item, None, fence)

    def _write(self, holder: Holder, item: str, fence: int) -> None:
        claim = {"item_id": item, "fence": fence}
        if holder.kind == "session":
            body: Json = {"metadata": {"note": str(fence)}, "claim": claim}
            answer = self._call("PATCH", holder.path, body)
        else:
            command = {"event_type": "command_logged", "event_data": {"command": "make"}}
            answer = self._call("POST", f"{holder.path}/events", {**command, "claim": claim})
        self._note("write", answer, item, holder, fence)

    def _read(self, item: str) -> None:
        self._note("read", self._call("GET", f"/api/claims/{item}"), item)

    # Calls and their answers

    def _call(
        self, method: str, path: str, body: Json | None = None, *, is_keyed: bool | None = None
    ) -> _Answer:
        keyed = self._random.random() < 0.7 if is_keyed is None else is_keyed
        headers = {"Idempotency-Key": str(uuid4())} if keyed and method != "GET" else {}
        invoked = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            again = time.monotonic()
            reply = self._attempt(method, path, body, headers)
            answered = time.monotonic()
            if reply is not None:
                return _Answer(invoked, again, answered, attempts, reply)
            if not headers:
                return _Answer(invoked, again, NEVER, attempts, None)
            if answered > invoked + PATIENCE_SECONDS:
                raise AssertionError(f"no answer to {method} {path} for {PATIENCE_SECONDS:g} s")
            time.sleep(BACKOFF_SECONDS * self._random.random())

    def _attempt(
        self, method: str, path: str, body: Json | None, headers: dict[str, str]
    ) -> httpx.Response | None:
        urls = self._world.urls
        mostly = self._random.random() < 0.9
        url = urls[self._favourite] if mostly else self._random.choice(urls)
        try:
            reply = self._http.request(method, url + path, json=body, headers=headers)
        except httpx.TransportError:
            return None
        return None if reply.status_code in UNSURE else reply

    def _note(
        self,
        verb: Verb,
        answer: _Answer,
        item: str,
        holder: Holder | None = None,
        fence: int | None = None,
    ) -> None:
        """Record what is known of a call that concerned an item."""
        asked = Operation(
            item=item,
            verb=verb,
            outcome="unknown",
            invoked=answer.invoked,
            holder=holder.id if holder else None,
            fence=fence,
        )
        known: list[Operation | None] = []
        reply = answer.reply
        # A refusal is not kept under the key: what an attempt before did, or may yet do, is open.
        is_open = reply is None or (answer.attempts > 1 and not reply.is_success)
        if is_open and verb in CHANGING:
            known.append(asked)
        if reply is not None:
            told = self._told(replace(asked, answered=answer.answered), answer, reply)
            known.append(told)
            if told is not None and told.anew:
                self._check_date("grant", answer, reply.json()["claimed_at"])
        with self._world.lock:
            self._world.operations += filter(None, known)
            self._world.counts["sent more than once"] += answer.attempts > 1

    def _told(self, asked: Operation, answer: _Answer, reply: httpx.Response) -> Operation | None:
        value: Json = reply.json()
        if "X-Read-Lag" in reply.headers:
            return None
        if reply.is_success:
            return self._carried_out(asked, reply.status_code, value)
        if value.get("code") == "conflict":  # nothing was decided
            self._world.counts["conflicts"] += 1
            return None
        if value.get("code") not in REFUSALS:
            with self._world.lock:
                self._world.broken.append(f"{asked.verb}: {reply.status_code} {reply.text}")
            return None
        details: Json = value.get("details") or {}
        self._saw(asked.item, details.get("fence"), _owner(details))
        return replace(
            asked,
            invoked=answer.again,
            outcome="refused",
            code=value["code"],
            seen_holder=_owner(details),
            seen_fence=details.get("fence"),
        )

    def _carried_out(self, asked: Operation, status: int, value: Json) -> Operation:
        told = replace(asked, outcome="ok")
        if asked.verb in ("end", "write"):
            return told
        self._saw(asked.item, value["fence"], value["holder"])
        return replace(
            told,
            anew=asked.verb in ("claim", "take over") and status == 201,
            seen_holder=value["holder"],
            seen_fence=value["fence"],
        )

    def _check_date(self, what: str, answer: _Answer, date: str) -> None:
        """It is dated between its call and its answer: the database runs on this machine."""
        offset = time.time() - time.monotonic()
        dated = datetime.fromisoformat(date).timestamp() - offset
        world = self._world
        early, late = answer.invoked - dated, dated - answer.answered
        if max(early, late) > world.slack:
            by = f"{early:.2f} s before its call" if early > 0 else f"{late:.2f} s after its answer"
            with world.lock:
                world.misdated.append(f"a {what} is dated {by}, at {date}")

    def _saw(self, item: str, fence: int | None, holder: str | None) -> None:
        if fence is not None and fence >= self._world.seen.get(item, (None, 0))[1]:
            self._world.seen[item] = (holder, fence)


REFUSALS = ENDED | {"claim_held", "not_holder", "stale_fence", "claim_not_found"}


def _owner(details: Json) -> str | None:
    holder: str | None = details.get("claimed_by", details.get("holder"))
    return holder
