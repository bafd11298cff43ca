"""Putting load on a server: as much as it takes (wrk), at a constant rate, or one by one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import psutil

from bench import machine
from bench.figures import BenchError
from bench.open_loop import Outcome, Plan
from bench.servers import Server

CONNECTIONS = 64
# Requests that wrk leaves behind at its end are still carried out.
DRAIN_SECONDS = 0.5
SCRIPT = Path(__file__).with_name("posts.lua")
# Refusals by the store's own rules happen to the stock recorder when two beats of one session
# meet; more than this share is a broken measurement.
TOLERATED_SHARE = 0.01


# A path and a body.
Post = tuple[str, str]


def beats(ids: Iterable[str], plural: str = "sessions") -> list[Post]:
    """A heartbeat of each."""
    return [(f"/api/{plural}/{each}/heartbeat", "{}") for each in ids]


class Phase(NamedTuple):
    """What one server did under full load."""

    per_second: float
    cpu_us: float  # of the server for each request
    postgres_cpu_us: float
    p99_ms: float
    refused: int


class Saturation:
    """Requests in turn over so many connections, as fast as they are answered."""

    def __init__(
        self,
        directory: Path,
        requests: Sequence[Post],
        postgres: psutil.Process,
        connections: int = CONNECTIONS,
    ) -> None:
        self._requests = directory / f"requests-{uuid4().hex[:8]}"
        self._requests.write_text("".join(f"{path}\t{body}\n" for path, body in requests))
        self._postgres = postgres
        self._connections = connections

    def phase(self, server: Server, seconds: int) -> Phase:
        """One phase of load, with what it cost. Raises :class:`BenchError` if it went wrong."""
        before = machine.cpu_seconds(server.process)
        postgres_before = machine.family_cpu_seconds(self._postgres)
        result = self._wrk(server, seconds)
        time.sleep(DRAIN_SECONDS)
        used = machine.cpu_seconds(server.process) - before
        postgres_used = machine.family_cpu_seconds(self._postgres) - postgres_before
        requests = result["requests"]
        good = requests - result["refused"]
        if result["broken"] or not good or result["refused"] > requests * TOLERATED_SHARE:
            raise BenchError(f"{server.name} under load: {result}")
        return Phase(
            per_second=good / result["seconds"],
            cpu_us=used / requests * 1e6,
            postgres_cpu_us=postgres_used / requests * 1e6,
            p99_ms=result["p99_ms"],
            refused=result["refused"],
        )

    def _wrk(self, server: Server, seconds: int) -> Mapping[str, Any]:
        command = ["wrk", "-t1", f"-c{self._connections}", f"-d{seconds}s", "--timeout", "20s"]
        command += ["-s", str(SCRIPT), server.url, "--", server.key, str(self._requests)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        _, found, result = done.stdout.partition("RESULT ")
        if done.returncode or not found:
            raise BenchError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
        parsed: Mapping[str, Any] = orjson.loads(result)
        return parsed


def wrk_is_missing() -> bool:
    """Whether the load generator has to be installed first."""
    return shutil.which("wrk") is None


class Running:
    """A load in a process of its own."""

    def __init__(self, plan: Plan) -> None:
        # A file takes any amount at once, where a pipe wants someone to read it meanwhile.
        self._outcome = tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.open_loop"],
            cwd=machine.ROOT,
            stdin=subprocess.PIPE,
            stdout=self._outcome,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(list(plan)))
        self.process.stdin.close()

    def finish(self) -> Outcome:
        """Wait for its end. Raises :class:`BenchError` unless every request succeeded."""
        if self.process.wait() != 0:
            raise BenchError("the load generator failed")
        self._outcome.seek(0)
        outcome = Outcome(*orjson.loads(self._outcome.read()))
        if outcome.refused or outcome.unanswered:
            raise BenchError(
                f"{outcome.refused} requests were refused, {outcome.unanswered} not answered"
            )
        return outcome

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._outcome.close()


@contextmanager
def constant_rate(
    server: Server, requests: Sequence[Post], rate: int, seconds: int, connections: int = 32
) -> Iterator[Running]:
    """Requests in turn at a constant rate."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    running = Running(
        Plan(parts.hostname, parts.port, server.key, list(requests), rate, seconds, connections)
    )
    try:
        yield running
    finally:
        running.close()


class Client:
    """One client that asks, waits for the answer, and asks again."""

    def __init__(self, server: Server) -> None:
        self._connection = server.connect()
        self._headers = {"X-API-Key": server.key, "Content-Type": "application/json"}

    def timed(self, verb: str, path: str, body: Mapping[str, object] | None = None) -> float:
        """Milliseconds until the whole reply was there."""
        return self._asked(verb, path, body)[0]

    def get(self, path: str) -> Mapping[str, Any]:
        """The reply to a GET."""
        return self._asked("GET", path, None)[1]

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        """The reply to a POST."""
        return self._asked("POST", path, body or {})[1]

    def _asked(
        self, verb: str, path: str, body: Mapping[str, object] | None
    ) -> tuple[float, Mapping[str, Any]]:
        content = None if body is None else orjson.dumps(body)
        started = time.perf_counter()
        self._connection.request(verb, path, content, self._headers)
        response = self._connection.getresponse()
        reply = response.read()
        taken = (time.perf_counter() - started) * 1000
        if response.status not in (200, 201):
            raise BenchError(f"{verb} {path}: {response.status} {reply[:500].decode()}")
        parsed: Mapping[str, Any] = orjson.loads(reply)
        return taken, parsed


def touch(server: Server, ids: Iterable[str], plural: str = "sessions") -> None:
    """Beat once for each: the first beat of a cold one loads it from the log."""
    client = Client(server)
    for path, _ in beats(ids, plural):
        client.timed("POST", path, {})


def bulk(ids: Sequence[str], said: Mapping[str, object] | None = None) -> Mapping[str, object]:
    """The body for ``/api/heartbeats`` with a beat of each instance."""
    return {"heartbeats": [{"instance_id": each, **(said or {})} for each in ids]}


def register_instances(server: Server, count: int) -> list[str]:
    """The ids of so many new instances."""
    client = Client(server)
    wanted = {"project": "odin", "instance_type": "PS"}
    return [client.post("/api/instances", wanted)["instance_id"] for _ in range(count)]
