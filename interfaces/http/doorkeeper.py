"""The connections of a process: which may stay, for how long, and their limits.

A stranger is a connection that has not shown a valid key yet. Whoever has no key can open as many
as an operating system allows, so at the limit the longest-standing stranger makes room: a client
with a key sends it with its first request, and is none for longer than that takes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from domain.errors import Unavailable
from interfaces.access.addresses import is_loopback, neighbourhood
from interfaces.access.auth import FAILED, failures
from interfaces.access.repeats import Repeats

log = logging.getLogger("holdfast.http")

# File descriptors that are not for connections: the database's, logs, what libraries open.
OTHER_FILES = 128
# What all connections together may hold of requests that wait behind unanswered ones, in bytes.
MAX_HELD = 32 * 1024 * 1024
# How many requests of strangers are begun before a pause, and its length in seconds. The others
# wait, so that whoever has a key waits for no more than these, however many there are. Without the
# pause the event loop had something to do all the time, and the writer and the projector, which are
# threads, would get Python's lock only every five milliseconds: a write takes it several times.
TURNS = 8
PAUSE_SECONDS = 0.001
# The same before each large body, for every byte of it: looking through it takes less than that.
PAUSE_SECONDS_A_BYTE = 40e-9
# Replies that are on their way to clients of one key: from so many bytes on another large one has
# to wait, and for how long it does, in seconds.
MAX_UNREAD_OF_ONE = 8 * 1024 * 1024
ROOM_SECONDS = 10.0
# After so many seconds what was refused without a line of its own is told, when nothing follows.
SUMMARY_SECONDS = 30.0
# How often connections are looked at, in seconds; more often where the limits are shorter.
LOOK_SECONDS = 0.5


class RepliesUnread(Unavailable):
    """Too many replies to this API key have not been read. Read them, then try again."""

    code = "replies_unread"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What connections may do. Times in seconds."""

    connections: int = 2_000
    connections_per_address: int = 1_000
    trusted_proxies: tuple[str, ...] = ()
    header_seconds: float = 10
    body_seconds: float = 30
    write_seconds: float = 30
    idle_seconds: float = 30

    @property
    def look_seconds(self) -> float:
        """How often to look, so that the shortest of the times is kept fairly well."""
        times = self.header_seconds, self.body_seconds, self.write_seconds, self.idle_seconds
        return min(LOOK_SECONDS, min(times) / 4)


class Visitor(Protocol):
    """A connection, as the doorkeeper sees it."""

    @property
    def address(self) -> str:
        """The address at the other end."""

    @property
    def has_key(self) -> bool:
        """Whether a valid key came with one of its requests."""

    @property
    def is_busy(self) -> bool:
        """Whether a request of it is being answered."""

    def look(self, now: float) -> None:
        """End it if it has used up its time."""

    def drop(self) -> None:
        """End it."""


class Doorkeeper:
    """The connections of a process."""

    def __init__(self, limits: Limits, when_closing: Callable[[], None] | None = None) -> None:
        """``when_closing`` is called once, when the connections are told to end."""
        self.limits = limits
        self._when_closing = when_closing
        # Seconds of being awake: a process that was frozen must not hold that against anybody. Set
        # when connections are looked at, and as exact as that is often.
        self.now = 0.0
        # Bytes that connections hold of requests whose turn has not come.
        self.held = 0
        self.refusals = Repeats()
        self._most = min(limits.connections, _file_limit() - OTHER_FILES)
        self._exempt = [ipaddress.ip_network(proxy) for proxy in limits.trusted_proxies]
        self._large_bodies = asyncio.Lock()
        self._large_bodies_of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The bytes of replies that are not sent as a whole yet, by key; and who waits for room.
        self._unread: dict[str, int] = {}
        self._room = asyncio.Condition()
        self._large_replies_of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._turns = 0
        self._waiting: deque[Callable[[], None]] = deque()
        # Dictionaries, as they keep the order in which connections came.
        self._all: dict[Visitor, None] = {}
        self._strangers: dict[Visitor, None] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._all)

    def close(self) -> None:
        """Note that the connections are being told to end; each may say so."""
        tell, self._when_closing = self._when_closing, None
        if tell is not None:
            tell()

    def admit(self, visitor: Visitor) -> bool:
        """Admit a connection if there is room; another may be closed for it."""
        place = neighbourhood(visitor.address)
        count = self._counts.get(place, 0)
        if count >= self.limits.connections_per_address and not self._is_exempt(visitor.address):
            admitted = self._make_room(place)
        else:
            admitted = len(self._all) < self._most or self._make_room(None)
        if not admitted:
            self.tell("too_many_connections", visitor.address)
            return False
        self._all[visitor] = None
        self._strangers[visitor] = None
        self._counts[place] = self._counts.get(place, 0) + 1
        return True

    def introduce(self, visitor: Visitor) -> None:
        """Record that the connection has shown a valid key."""
        self._strangers.pop(visitor, None)

    def forget(self, visitor: Visitor) -> None:
        """Remove a connection that has ended or was told to end."""
        if visitor not in self._all:
            return
        del self._all[visitor]
        self._strangers.pop(visitor, None)
        place = neighbourhood(visitor.address)
        self._counts[place] -= 1
        if not self._counts[place]:
            del self._counts[place]

    def take_turns(self, begin: Callable[[], None]) -> None:
        """Begin to answer a stranger, at once or after those who came before."""
        if self._waiting or self._turns >= TURNS:
            self._waiting.append(begin)
            return
        if not self._turns:
            self._pause()
        self._turns += 1
        begin()

    def _next_turns(self) -> None:
        self._turns = min(TURNS, len(self._waiting))
        if self._turns:
            self._pause()
        for _ in range(self._turns):
            self._waiting.popleft()()

    def _pause(self) -> None:
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._next_turns)

    async def wait_for_large_body(self, who: str, size: int) -> None:
        """Return in a round of the event loop in which no other large body is looked through.

        Those of each key wait in a line of their own, and the lines take turns. Between two of
        them others have about as much time as looking through a body of this size takes.
        """
        own = self._large_bodies_of.setdefault(who, asyncio.Lock())
        async with own, self._large_bodies:
            await asyncio.sleep(PAUSE_SECONDS + size * PAUSE_SECONDS_A_BYTE)

    def has_room(self, who: str) -> bool:
        """Whether another large reply may be on its way to a key's clients."""
        return self._unread.get(who, 0) < MAX_UNREAD_OF_ONE

    async def wait_for_room(self, who: str) -> None:
        """Return when a key's clients have read enough of their replies for another one."""
        async with self._room:
            await self._room.wait_for(partial(self.has_room, who))

    @asynccontextmanager
    async def room(self, who: str) -> AsyncIterator[None]:
        """When it is a large reply's turn, and there is room: make it, and begin to send it.

        Raises :class:`RepliesUnread` if that takes too long.
        """
        turn = self._large_replies_of.setdefault(who, asyncio.Lock())
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await turn.acquire()
                try:
                    await self.wait_for_room(who)
                except BaseException:
                    turn.release()
                    raise
        except TimeoutError:
            raise RepliesUnread from None
        try:
            yield
        finally:
            turn.release()

    @asynccontextmanager
    async def sending(self, who: str, size: int) -> AsyncIterator[None]:
        """Count a reply for the length of the block."""
        self._unread[who] = self._unread.get(who, 0) + size
        try:
            yield
        finally:
            self._unread[who] -= size
            if not self._unread[who]:
                del self._unread[who]
            async with self._room:
                self._room.notify_all()

    def _sum_up(self) -> None:
        for repeats, event in ((self.refusals, "requests_refused"), (failures, FAILED)):
            count, sources, most = repeats.left(SUMMARY_SECONDS)
            if count:
                extra = {"attempts_since_last_line": count, "addresses": sources, "ip": most}
                log.warning(event, extra=extra)

    def tell(self, reason: str, address: str) -> None:
        """Log that something was refused, unless that has been said often enough."""
        kept_back = self.refusals.note(neighbourhood(address))
        if kept_back is not None:
            log.info(
                "request_refused",
                extra={"reason": reason, "ip": address, "refusals_since_last_line": kept_back},
            )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look at all connections now and then, for the length of the block."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        pause = self.limits.look_seconds
        last = summed_up = time.monotonic()
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            self.now += min(now - last, 2 * pause)
            last = now
            if now - summed_up > SUMMARY_SECONDS / 3:
                summed_up = now
                self._sum_up()
            for visitor in list(self._all):
                try:
                    visitor.look(self.now)
                except Exception:
                    log.exception("connection_failed")
                    visitor.drop()

    def _make_room(self, place: str | None) -> bool:
        """End a connection that is worth less than a new one; of this place, if one is named."""
        for candidate in self._dispensable():
            if place is None or neighbourhood(candidate.address) == place:
                self.forget(candidate)
                self.tell("dropped_for_another_connection", candidate.address)
                candidate.drop()
                return True
        return False

    def _dispensable(self) -> Iterator[Visitor]:
        """Strangers, the longest-standing first; then whoever asks nothing at the moment."""
        while self._strangers:
            oldest = next(iter(self._strangers))
            if not oldest.has_key:
                break
            del self._strangers[oldest]
        yield from (stranger for stranger in self._strangers if not stranger.has_key)
        for visitor in self._all:
            if visitor not in self._strangers and not visitor.is_busy:
                yield visitor

    def _is_exempt(self, address: str) -> bool:
        """Whether many clients may stand behind it: this machine's, or a trusted proxy's."""
        if is_loopback(address):
            return True
        if not self._exempt:
            return False
        with suppress(ValueError):
            parsed = ipaddress.ip_address(address)
            return any(parsed in network for network in self._exempt)
        return False


def _file_limit() -> int:
    """How many files this process may have open."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_file_limit(limits: Limits) -> None:
    """Let this process, and those it starts, have all the connections that it may have open."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    attainable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (attainable, hard))
