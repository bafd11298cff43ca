"""The real server as a process of its own, and a client that speaks to it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import orjson
import psycopg
from psycopg.errors import ObjectInUse
from psycopg.sql import SQL, Identifier

from interfaces.host.embedded_postgres import EmbeddedPostgres
from interfaces.host.settings import Settings
from tests.support.replies import check_reply

Json = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PLAIN_KEY = str(uuid4())
TEAM_KEY = str(uuid4())
# Patience costs nothing as long as what is awaited comes, and a loaded machine takes its time.
START_SECONDS = 120.0
PATIENCE_SECONDS = 60.0
REPLY_SECONDS = 30.0
END_SECONDS = 90.0

_SETTINGS = frozenset(name.upper() for name in Settings.model_fields)
# With its end of line: a line may be half written.
_URL = re.compile(r"^holdfast serves on (http://\S+)\n", re.MULTILINE)
_ERROR_FIELDS = {"statusCode", "error", "code", "message", "timestamp", "path", "request_id"}


def eventually(what: str, ask: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """The first answer that is neither None nor False; fails once the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, f"in vain awaited: {what}"
        time.sleep(0.02)


def ok(response: httpx.Response, status: int = 200) -> Json:
    """The body of a reply that must have this status."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    body: Json = response.json()
    return body


def gone(response: httpx.Response) -> None:
    """A reply without a body."""
    assert response.status_code == 204, f"{response.status_code}: {response.text}"
    assert response.content == b""


def refused(response: httpx.Response, status: int, code: str) -> Json:
    """The body of an error reply, which always has the one shape (spec 9)."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    body: Json = response.json()
    assert set(body) - {"errors", "details"} == _ERROR_FIELDS, body
    assert (body["statusCode"], body["code"]) == (status, code), body
    assert body["path"] == response.url.path
    assert body["timestamp"].endswith("Z")
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["message"]
    return body


def invalid(response: httpx.Response, *fields: str) -> Json:
    """The body of a 400 that names exactly these fields."""
    body = refused(response, 400, "validation_error")
    assert sorted({error["field"] for error in body["errors"]}) == sorted(fields), body
    assert all(error["message"] for error in body["errors"])
    return body


def position(response: httpx.Response) -> int:
    """The position that a command's reply tells."""
    return int(response.headers["x-event-position"])


# What grows from one moment to the next.
AGES = frozenset(
    {
        "age_seconds",
        "uptime_seconds",
        "heartbeat_age_seconds",
        "heartbeat_age_human",
        "claim_duration_minutes",
        "seconds_until_takeover",
    }
)


def lasting(told: Json) -> Json:
    """What of a reply does not change with the time alone."""
    return {field: value for field, value in told.items() if field not in AGES}


def is_uuid4(text: str) -> bool:
    """Whether the text is a UUID of version 4 in its usual form."""
    return str(UUID(text)) == text and UUID(text).version == 4


def name(kind: str) -> str:
    """A name that nothing else has."""
    return f"{kind}-{uuid4().hex[:12]}"


def _check(response: httpx.Response) -> None:
    if response.is_success and response.request.method != "HEAD":
        request = response.request
        check_reply(request.method, request.url.path, response.status_code, response.read())


class Api(httpx.Client):
    """A client with a key of its own; what it makes has names that nothing else has.

    Every reply is held against its operation's model, unless ``of_today`` says that the service is
    one of another version.
    """

    def __init__(self, url: str, key: str | None, namespace: str, *, of_today: bool = True) -> None:
        headers = {} if key is None else {"X-API-Key": key}
        # Nobody speaks TLS here, and loading its certificates takes longer than many a test.
        super().__init__(
            base_url=url, headers=headers, timeout=REPLY_SECONDS, trust_env=False, verify=False
        )
        if of_today:
            self.event_hooks = {"response": [_check]}
        self.namespace = namespace
        self.key = key

    def session(self, **fields: object) -> Json:
        """A new session, in a place of its own unless ``fields`` say otherwise."""
        body = {"project_id": name("project"), "machine_id": name("machine"), **fields}
        return ok(self.post("/api/sessions", json=body), 201)

    def get_session(self, session_id: str) -> Json:
        """The session as it reads now."""
        return ok(self.get(f"/api/sessions/{session_id}"))

    def patch_session(self, session_id: str, **fields: object) -> Json:
        """The session after a PATCH."""
        return ok(self.patch(f"/api/sessions/{session_id}", json=fields))

    def beat(self, session_id: str, **fields: object) -> Json:
        """The reply to a heartbeat."""
        return ok(self.post(f"/api/sessions/{session_id}/heartbeat", json=fields))

    def fail(self, session_id: str, error_message: str = "out of memory") -> Json:
        """The session, marked failed."""
        body = {"error_message": error_message}
        return ok(self.post(f"/api/sessions/{session_id}/mark-failed", json=body))

    def stall(self, session_id: str) -> Json:
        """The session, marked stalled."""
        return ok(self.post(f"/api/sessions/{session_id}/mark-stalled"))

    def recover(self, session_id: str, machine_id: str, **fields: object) -> httpx.Response:
        """The reply to a recovery onto a machine."""
        body = {"new_machine_id": machine_id, **fields}
        return self.post(f"/api/sessions/{session_id}/recover", json=body)

    def task(self, session: Json, status: str = "pending", **fields: object) -> Json:
        """A new task of the session, taken to a status."""
        body = {
            "session_id": session["session_id"],
            "project_id": session["project_id"],
            "task_name": name("task"),
            **fields,
        }
        task = ok(self.post("/api/tasks", json=body), 201)
        if status != "pending":
            reason = {"error_message": "it broke"} if status == "failed" else {}
            task = self.patch_task(task["task_id"], status=status, **reason)
        return task

    def get_task(self, task_id: str) -> Json:
        """The task as it reads now."""
        return ok(self.get(f"/api/tasks/{task_id}"))

    def patch_task(self, task_id: str, **fields: object) -> Json:
        """The task after a PATCH."""
        return ok(self.patch(f"/api/tasks/{task_id}", json=fields))

    def tasks_of(self, session: Json) -> list[Json]:
        """The session's tasks."""
        query = {"session_id": session["session_id"], "limit": 200}
        tasks: list[Json] = ok(self.get("/api/tasks", params=query))["tasks"]
        return tasks

    def machine(self, **fields: object) -> Json:
        """A new machine."""
        body = {"hostname": name("host"), "docker_slots": [], **fields}
        return ok(self.post("/api/machines", json=body), 201)

    def get_machine(self, machine_id: str) -> Json:
        """The machine as it reads now."""
        return ok(self.get(f"/api/machines/{machine_id}"))

    def patch_machine(self, machine_id: str, **fields: object) -> Json:
        """The machine after a PATCH."""
        return ok(self.patch(f"/api/machines/{machine_id}", json=fields))


class Server:
    """``holdfast-server serve`` on a database. A context manager: it is stopped at the end."""

    # Keys of namespaces of which each is handed out once: a test has a world of its own. Each costs
    # a third of a millisecond of the start.
    worlds = 40

    def __init__(
        self, database_url: str | None, directory: Path, code: str | Path = ROOT, **settings: str
    ) -> None:
        """``code``: where the packages of the version are that is to be served."""
        self.database_url = database_url
        self._code = Path(code)
        self.output = directory / f"server-{uuid4().hex[:8]}.log"
        self._worlds = itertools.count()
        self._keys = [str(uuid4()) for _ in range(self.worlds)]
        self._environ = environment(
            {
                "DATA_DIR": str(directory),
                "PORT": "0",
                "LOG_LEVEL": "info",
                "SWEEP_SECONDS": "86400",
                "API_KEYS": ",".join(self._api_keys()),
                **({"DATABASE_URL": database_url} if database_url else {}),
                **settings,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.url = ""

    def __enter__(self) -> Server:
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _command_in(self._code), "serve"],
                cwd=self._code,
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.url = eventually("the server's address", self._announced, START_SECONDS)
        eventually("an answer of the server", self._answers, START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process."""
        assert self._process is not None
        return self._process

    def default(self) -> Api:
        """A client of the namespace ``default``."""
        return self._api(PLAIN_KEY, "default")

    def team(self) -> Api:
        """A client of the namespace ``team-b``."""
        return self._api(TEAM_KEY, "team-b")

    def world(self) -> Api:
        """A client of a namespace that nobody has used yet."""
        with self._lock:
            number = next(self._worlds)
        return self._api(self._keys[number], f"world-{number}")

    def nobody(self) -> Api:
        """A client without a key."""
        return self._api(None, "")

    def _api(self, key: str | None, namespace: str) -> Api:
        return Api(self.url, key, namespace, of_today=self._code == ROOT)

    def log(self) -> str:
        """All that the server has printed."""
        return self.output.read_text(encoding="utf-8")

    def lines(self, message: str) -> list[Json]:
        """The log lines with this message. The last line may be half written, and is left out."""
        whole = self.log().split("\n")[:-1]
        lines = [orjson.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def _api_keys(self) -> Iterator[str]:
        yield PLAIN_KEY
        yield f"team-b:{TEAM_KEY}"
        for number, key in enumerate(self._keys):
            yield f"world-{number}:{key}"

    def _announced(self) -> str | None:
        assert self.process.poll() is None, self.log()
        found = _URL.search(self.log())
        return found and found[1]

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            with self.nobody() as client:
                return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False


class CommonServer(Server):
    """A server that many tests share."""

    worlds = 2_000


def _command_in(code: Path) -> str:
    """The module of ``holdfast-server``, which versions from before have elsewhere."""
    is_here = (code / "interfaces" / "host").is_dir()
    return "interfaces.host.server" if is_here else "interfaces.server"


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings of the service, and no others."""
    kept = {k: v for k, v in os.environ.items() if k not in _SETTINGS}
    return {**kept, **settings}


def attempt(**settings: str) -> subprocess.CompletedProcess[str]:
    """A start of the server that is expected to fail by itself."""
    return subprocess.run(
        [sys.executable, "-m", "interfaces.host.server", "serve"],
        cwd=ROOT,
        env=environment({"PORT": "0", **settings}),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@contextmanager
def cloned(cluster: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The owner's URL of a database with the whole schema, for longer than one test."""
    database = f"a_{uuid4().hex}"
    create = SQL("CREATE DATABASE {} TEMPLATE {}")
    drop = SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database))

    def clone() -> bool:
        try:
            admin.execute(create.format(Identifier(database), Identifier(template)))
        except ObjectInUse:  # another test is cloning it at the moment
            return False
        return True

    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        eventually("the template to be free", clone)
        yield cluster.url_of(database)
        admin.execute(drop)
