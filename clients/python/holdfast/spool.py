"""Keeps writes that could not be sent on disk, in order, until they can (S4 4.3, spec 11).

A file for each service, shared by all processes of the user. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from holdfast.additions import still_marked
from holdfast.address import normal
from holdfast.database import Database, is_busy, statements
from holdfast.errors import HoldfastError
from holdfast.kept import Entry as Entry
from holdfast.kept import Left as Left
from holdfast.kept import OtherAddress as OtherAddress
from holdfast.kept import OtherKey as OtherKey
from holdfast.kept import Refused as Refused
from holdfast.kept import SpoolStats as SpoolStats
from holdfast.kept import moment_of
from holdfast.losses import NONE, Losses, Note
from holdfast.request import PLACEHOLDER, Request, Write, dumped

log = logging.getLogger("holdfast.spool")

SQL = statements(Path(__file__).with_name("spool.sql").read_text(encoding="utf-8"))
MAX_BYTES = 256 * 1024 * 1024
# What is kept in memory while the disk cannot be written.
MAX_IN_MEMORY = 10_000
MAX_MEMORY_BYTES = 64 * 1024 * 1024
# The service takes a quarter of it.
MAX_BODY_BYTES = 1024 * 1024
# A heartbeat says that someone is alive: sent later than this by another, it would be a lie. It
# must stay below the service's shortest threshold (spec 5).
BEAT_SECONDS = 90.0
REMEMBERED_SECONDS = 30 * 24 * 3600.0
# After it the service does not repeat a reply any more.
FORGOTTEN_SECONDS = 24 * 3600.0
# Some file systems tell the time of a change in steps of two seconds.
CLOCK_STEP_SECONDS = 2.0
# So many other files are looked at.
MAX_ADDRESSES = 50
ADOPTION_SECONDS = 2.0
# What an entry of no API key at all is listed under.
NO_KEY = "none"


class Spool:
    """The writes kept for one service under one API key."""

    def __init__(
        self, folder: Path, url: str, api_key: str | None, *, max_bytes: int = MAX_BYTES
    ) -> None:
        self._url = normal(url)
        self._database = Database(folder / _file_name(self._url), SQL["schema"], max_bytes)
        self._key_id = _key_id(api_key)
        self._token = uuid4().hex
        self._lock = threading.RLock()
        self._delivering = threading.Lock()
        # What is not on disk: for a moment at most, as long as the disk can be written.
        self._overflow: list[Entry] = []
        self._sent: set[str] = set()
        self._ids: dict[str, str] = {}
        # How often the service failed over an entry, also where that cannot be written.
        self._faults: Counter[str] = Counter()
        self._in_trouble = False
        # What is neither in memory nor on disk, and not on record; and what is by now.
        self._lost, self._lost_on_record = NONE, 0
        self._note = Note(self.path)
        # How the file was when there was nothing in it to be sent.
        self._idle: tuple[int, ...] | None = None

    @property
    def path(self) -> Path:
        """The spool's file."""
        return self._database.path

    @property
    def key_id(self) -> str:
        """What the API key is listed under."""
        return self._key_id or NO_KEY

    def keep(self, write: Write, *, placeholder: str | None = None, tried: bool = False) -> None:
        """Keep a write, to be sent after all others. ``tried``: it may have reached the service.

        Without a disk it is kept in memory. Raises ``TypeError`` or ``ValueError`` if the body is
        not JSON, or larger than any that the service takes; nothing else.
        """
        self._keep([_entry(write, placeholder, tried)])

    def keep_all(self, writes: Iterable[Write]) -> None:
        """Keep several that were never sent, in this order, by one write to the disk.

        Raises as :meth:`keep` does; then none of them is kept.
        """
        self._keep([_entry(write, None, tried=False) for write in writes])

    def _keep(self, entries: list[Entry]) -> None:
        with self._lock:
            for entry in entries:
                if entry.replaces is not None:
                    self._overflow = [o for o in self._overflow if o.replaces != entry.replaces]
                self._overflow.append(entry)
            self._settle()
            self._make_room()

    def first(self) -> Entry | None:
        """The one to send next; ``None`` if there is none, or none can be read just now."""
        with self._lock:
            self._settle()
            try:
                found = self._database.read(self._first)
            except (sqlite3.Error, OSError) as e:
                self._report(e)
                if is_busy(e):
                    return None
                found = None
            if found is None and self._overflow:
                found = self._overflow[0]
            if found is None:
                return None
            return found._replace(faults=max(found.faults, self._faults[found.key]))

    def has_any(self) -> bool:
        """Whether any write waits to be sent, whichever process kept it, as far as is known.

        As long as there is nothing, this is one look at the file's times.
        """
        # The lock: a write that another thread is removing counts until its id is known.
        with self._lock:
            if self._overflow:
                return True
            looks = self._looks()
            if looks is None or looks == self._idle:
                return False
            try:
                found = self._database.read(self._first) is not None
            except (sqlite3.Error, OSError) as e:
                return is_busy(e)
            # Within a step of the clock another change would not show.
            is_settled = time.time() - looks[0] / 1e9 > CLOCK_STEP_SECONDS
            self._idle = looks if is_settled and not found else None
            return found

    def done(self, entry: Entry, created_id: str | None = None) -> None:
        """Remove a write that was sent; ``created_id`` replaces its placeholder."""

        def remove(db: sqlite3.Connection) -> None:
            if entry.placeholder is not None and created_id is not None:
                alias = {"placeholder": entry.placeholder, "id": created_id, "at": time.time()}
                db.execute(SQL["alias"], alias)
            db.execute(SQL["remove"], {"key": entry.key})

        if entry.placeholder is not None and created_id is not None:
            self._ids[entry.placeholder] = created_id
        self._leave(entry, remove)

    def set_aside(self, entry: Entry, error: HoldfastError) -> None:
        """Remove a write that the service refused; :meth:`refused` lists it."""

        def refuse(db: sqlite3.Connection) -> None:
            told = {"at": time.time(), "code": error.code, "message": error.message}
            if db.execute(SQL["has"], {"key": entry.key}).fetchone() is None:
                db.execute(SQL["refuse_unkept"], {**entry._asdict(), **told})
                return
            db.execute(SQL["refuse"], {"key": entry.key, **told})
            db.execute(SQL["remove"], {"key": entry.key})

        self._leave(entry, refuse)

    def trying(self) -> None:
        """The next ones are about to be sent: from now on they may have reached the service."""
        self._update("tried", key_id=self._key_id, at=time.time())

    def adopt(self, key_id: str) -> int:
        """Send with this API key the writes kept under another; returns how many there are.

        Only a person may decide that: the other key may belong to another namespace.
        """
        theirs = "" if key_id == NO_KEY else key_id
        long_ago = time.time() - FORGOTTEN_SECONDS
        values = {"key_id": self._key_id, "theirs": theirs, "long_ago": long_ago}
        return self._database.run(lambda db: db.execute(SQL["adopt"], values).rowcount)

    def let_wait_with_its_origin(self, entry: Entry) -> bool:
        """Keep it for the API key that what it belongs to was kept under; false if that is ours."""
        wanted = _placeholders(entry.request)

        def move(db: sqlite3.Connection) -> bool:
            for one in wanted:
                found = db.execute(SQL["awaited"], {"placeholder": one}).fetchone()
                if found is not None and found["key_id"] != self._key_id:
                    values = {"key_id": found["key_id"], "key": entry.key}
                    return db.execute(SQL["move"], values).rowcount > 0
            return False

        try:
            return self._database.run(move)
        except (sqlite3.Error, OSError) as e:
            self._report(e)
            return False

    def fault(self, entry: Entry) -> None:
        """The service failed over it, which may be this entry's doing."""
        self._faults[entry.key] = entry.faults + 1
        self._update("fault", key=entry.key)

    def resolved(self, request: Request) -> Request | None:
        """The request with ids for placeholders; ``None`` if one is not known yet."""
        ids = {placeholder: self.real(placeholder) for placeholder in _placeholders(request)}
        if not ids:
            return request
        if None in ids.values():
            return None
        text = json.dumps([request.path, request.body])
        path, body = json.loads(PLACEHOLDER.sub(lambda found: ids[found[0]] or "", text))
        return request._replace(path=path, body=still_marked(request.body, body))

    def real(self, an_id: str) -> str | None:
        """The id that a placeholder stands for, if it is known; any other id is its own."""
        if not PLACEHOLDER.fullmatch(an_id):
            return an_id
        if an_id not in self._ids:
            row = self._ask("real", placeholder=an_id)
            if row is None:
                return None
            self._ids[an_id] = row["id"]
        return self._ids[an_id]

    def is_awaited(self, request: Request) -> bool:
        """Whether what the request's placeholders stand for is still to be created.

        As long as another process is at the file, that is not known to be hopeless. If the file
        cannot be read at all, what is not in memory is lost, and the rest must not wait for it.
        """
        wanted = _placeholders(request)
        with self._lock:
            if any(entry.placeholder in wanted for entry in self._overflow):
                return True

        def look(db: sqlite3.Connection) -> bool:
            rows = (db.execute(SQL["awaited"], {"placeholder": one}).fetchone() for one in wanted)
            return any(row is not None for row in rows)

        try:
            return self._database.read(look)
        except (sqlite3.Error, OSError) as e:
            self._report(e)
            return is_busy(e)

    def stats(self) -> SpoolStats:
        """How many writes are kept and were refused."""
        counts = [self._ask(name, **self._mine()) for name in ("count", "count_others")]
        kept, others = (row[0] if row is not None else 0 for row in counts)
        return SpoolStats(kept + len(self._overflow), others, len(self.refused()))

    def other_keys(self) -> list[OtherKey]:
        """The writes that wait for other API keys, counted for each."""
        try:
            rows = self._database.read(
                lambda db: db.execute(SQL["other_keys"], self._mine()).fetchall()
            )
        except (sqlite3.Error, OSError):
            return []
        return [OtherKey(str(k or NO_KEY), count, moment_of(since)) for k, count, since in rows]

    def other_addresses(self) -> list[OtherAddress]:
        """The writes that wait for other addresses, counted for each."""
        found = []
        try:
            others = sorted(set(self.path.parent.glob("*.db")) - {self.path})
        except OSError:
            return []
        for path in others[:MAX_ADDRESSES]:
            with suppress(sqlite3.Error, OSError):
                url, writes, since = Database(path, "", 0).look(_waiting)
                if writes:
                    found.append(OtherAddress(url or path.stem, writes, since, path))
        return found

    def adopt_address(self, address: str) -> int:
        """Send to this address the writes kept for another; returns how many there are.

        Each is sent with the API key that it was kept under. Only a person may decide that. Raises
        ``sqlite3.Error`` or ``OSError``.
        """
        known = {other.address: other.path for other in self.other_addresses()}
        path = known.get(address) or known.get(normal(address) if "://" in address else address)
        if path is None:
            return 0
        other = Database(path, SQL["schema"], MAX_BYTES)
        with other.exclusively("sending", ADOPTION_SECONDS) as alone:
            if not alone:
                raise OSError("another process is sending what waits there; try again")
            writes, aliases = other.read(
                lambda db: [db.execute(SQL[n]).fetchall() for n in ("all_writes", "all_aliases")]
            )

            def take(db: sqlite3.Connection) -> None:
                long_ago = time.time() - FORGOTTEN_SECONDS
                for row in writes:
                    db.execute(SQL["take_over"], {**dict(row), "long_ago": long_ago})
                for row in aliases:
                    db.execute(SQL["alias"], {**dict(row), "at": row["known_at"]})

            def give(db: sqlite3.Connection) -> None:
                for row in writes:
                    db.execute(SQL["remove"], {"key": row["idempotency_key"]})

            # If it ends in between, both have them: their keys see to it that they happen once.
            self._database.run(take)
            other.run(give)
        self._idle = None
        return len(writes)

    def leave(self) -> Left:
        """Write to disk what is only in memory, as the process ends; returns what is left."""
        with self._lock:
            self._settle()
            unsent = sum(entry.replaces is None for entry in self._overflow)
            if unsent:
                now = time.time()
                self._lost += Losses(unsent, self._overflow[0].kept_at, now)
                self._note.write(self._lost, 0)
            lost = self._lost.writes + self._lost_on_record
            if self._looks() is None:
                return Left(0, lost)
            kept = self._ask("count_own", **self._mine())
            return Left(kept[0] if kept is not None else 0, lost)

    def lost(self) -> Losses:
        """The writes that were lost in the last month, because there was no room to keep them.

        That includes those that another process had only in memory when it died.
        """
        found = self._ask("lost")
        recorded = NONE if found is None or not found[0] else Losses(*found)
        return recorded + self._lost + self._note.others()

    def trouble(self) -> str | None:
        """Why the spool cannot be written; ``None`` if it can."""
        try:
            self._database.run(lambda db: db.execute(SQL["try_out"]).close())
        except (sqlite3.Error, OSError) as e:
            return str(e)
        return None

    def refused(self) -> list[Refused]:
        """The writes that the service refused in the last month, oldest first."""
        try:
            rows = self._database.read(lambda db: db.execute(SQL["refused"]).fetchall())
        except (sqlite3.Error, OSError):
            return []
        return [Refused(*row) for row in rows]

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Whether it is ours to send what is kept; false while another process or thread does."""
        if not self._delivering.acquire(blocking=False):
            yield False
            return
        try:
            with ExitStack() as stack:
                try:
                    alone = stack.enter_context(self._database.exclusively("sending"))
                except (sqlite3.Error, OSError):
                    # Without a disk there is nobody to share with.
                    alone = True
                if alone:
                    self._forget()
                yield alone
        finally:
            self._delivering.release()

    def _settle(self) -> None:
        """Bring to the disk what is only in memory, behind what is there, all of it or nothing."""
        if not self._overflow and not self._lost.writes:
            return
        try:
            self._database.run(self._store)
        except (sqlite3.Error, OSError) as e:
            self._report(e)
            self._note_losses()
        else:
            self._overflow.clear()
            self._recovered()

    def _make_room(self) -> None:
        """Give up the oldest of what is only in memory, if that is too much."""
        size = sum(len(entry.body) for entry in self._overflow)
        while len(self._overflow) > MAX_IN_MEMORY or size > MAX_MEMORY_BYTES:
            oldest = self._overflow.pop(0)
            size -= len(oldest.body)
            if oldest.replaces is not None:
                continue
            now = time.time()
            self._lost += Losses(1, now, now)
            if self._lost.writes == 1:
                log.error(
                    "There is no room for more than %d writes in memory, and %s cannot be written:"
                    " the oldest are lost.",
                    len(self._overflow),
                    self.path,
                )
        if self._overflow:
            self._note_losses()

    def _note_losses(self) -> None:
        """Where no room is needed: who looks later is to know what this process may take along."""
        self._note.write(self._lost, sum(entry.replaces is None for entry in self._overflow))

    def _store(self, db: sqlite3.Connection) -> None:
        mine = {"key_id": self._key_id, "owner": self._owner()}
        for entry in self._overflow:
            if entry.replaces is not None:
                db.execute(SQL["replace"], {**mine, "replaces": entry.replaces})
            db.execute(SQL["keep"], {**entry._asdict(), **mine})
        db.execute(SQL["name_url"], {"url": self._url})
        if self._lost.writes:
            # The first as a row of no writes: it tells since when.
            db.execute(SQL["lose"], {"at": self._lost.since, "writes": 0})
            db.execute(SQL["lose"], {"at": self._lost.until, "writes": self._lost.writes})

    def _first(self, db: sqlite3.Connection) -> Entry | None:
        for row in db.execute(SQL["first"], self._mine()):
            entry = Entry.read(*row)
            if entry.key not in self._sent:
                return entry
        return None

    def _leave(self, entry: Entry, work: Any) -> None:
        with self._lock:
            self._sent.add(entry.key)
            self._overflow = [o for o in self._overflow if o.key != entry.key]
            try:
                self._database.run(work)
            except (sqlite3.Error, OSError) as e:
                # It stays in the file, but this process does not send it again.
                self._report(e)
            else:
                self._sent.discard(entry.key)

    def _update(self, statement: str, **values: Any) -> None:
        try:
            self._database.run(lambda db: db.execute(SQL[statement], values).close())
        except (sqlite3.Error, OSError) as e:
            self._report(e)

    def _ask(self, statement: str, **values: Any) -> Any:
        try:
            return self._database.read(lambda db: db.execute(SQL[statement], values).fetchone())
        except (sqlite3.Error, OSError) as e:
            self._report(e)
            return None

    def _forget(self) -> None:
        def forget(db: sqlite3.Connection) -> None:
            db.execute(SQL["forget_beats"], self._mine())
            for name in ("forget_old", "forget_refused", "forget_lost"):
                db.execute(SQL[name], {"before": time.time() - REMEMBERED_SECONDS})

        try:
            self._database.run(forget)
        except (sqlite3.Error, OSError) as e:
            self._report(e)
        self._note.forget(time.time() - REMEMBERED_SECONDS)

    def _mine(self) -> Mapping[str, Any]:
        now = time.time()
        # A clock that was set back leaves times behind that are still to come.
        times = {"young": now - BEAT_SECONDS, "soon": now + BEAT_SECONDS}
        return {"key_id": self._key_id, "owner": self._owner(), **times}

    def _looks(self) -> tuple[int, ...] | None:
        """What of the file changes with its content; ``None`` if there is no file."""
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def _owner(self) -> str:
        return f"{os.getpid()}-{self._token}"

    def _report(self, error: Exception) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            log.warning(
                "The spool %s cannot be used (%s): what cannot be sent is kept in memory and is"
                " lost if this process ends.",
                self.path,
                error,
            )

    def _recovered(self) -> None:
        self._lost_on_record += self._lost.writes
        self._lost = NONE
        self._note.clear()
        if self._in_trouble:
            self._in_trouble = False
            log.info(
                "The spool %s can be used again; what was kept in memory is there now.", self.path
            )


def _entry(write: Write, placeholder: str | None, tried: bool) -> Entry:
    now = time.time()
    request = write.request
    assert request.idempotency_key is not None
    return Entry(
        request.idempotency_key,
        request.method,
        request.path,
        _dumped(request.body or {}),
        placeholder,
        write.replaces,
        now,
        now if tried else None,
        0,
    )


def _dumped(body: Mapping[str, Any]) -> str:
    text = dumped(body)
    if len(text) > MAX_BODY_BYTES:
        raise ValueError(f"it has over {MAX_BODY_BYTES >> 20} MiB")
    return text


def _placeholders(request: Request) -> set[str]:
    try:
        text = json.dumps([request.path, request.body], default=str, skipkeys=True)
    except ValueError:
        # It refers to itself, and will be refused for that.
        return set()
    return {found[0] for found in PLACEHOLDER.finditer(text)}


def _key_id(api_key: str | None) -> str:
    """As the service names the key in its events."""
    if not api_key:
        return ""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _waiting(db: sqlite3.Connection) -> tuple[str | None, int, float]:
    """What waits in a file of any version: for which address, how many writes, since when."""
    url = None
    with suppress(sqlite3.OperationalError):
        row = db.execute(SQL["url"]).fetchone()
        url = row[0] if row is not None else None
    writes, since = db.execute(SQL["elsewhere"]).fetchone()
    return url, writes, moment_of(since)


def _file_name(url: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", urlsplit(url).netloc)[:40]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.db"
