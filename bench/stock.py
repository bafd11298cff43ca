"""The other server to compare with: the same endpoint over the stock ``eventsourcing`` recorder.

    python -m bench.stock DATABASE_URL SESSIONS

An aggregate and an application as the library's documentation writes them, with its defaults: the
repository rebuilds the aggregate from its events, ``save`` records the new one. Its calls block,
so they run in Starlette's thread pool.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.bare import PATH, serve
from bench.history import session_id


class Session(Aggregate):
    """Counts its heartbeats; the library keeps the time of the last one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.beats = 0

    @staticmethod
    def create_id(number: int) -> UUID:
        """The id that the load asks for."""
        return UUID(session_id(number))

    @event("Heartbeat")
    def beat(self) -> None:
        """Note a sign of life."""
        self.beats += 1


class Sessions(Application[UUID]):
    """The use cases."""

    def open(self, number: int) -> None:
        """Start a session."""
        self.save(Session(number))

    def beat(self, session_id: UUID) -> int:
        """Note a sign of life; how many there were."""
        session: Session = self.repository.get(session_id)
        session.beat()
        self.save(session)
        return session.beats


def environment(url: str) -> dict[str, str]:
    """The library's settings for a database."""
    given = conninfo_to_dict(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(given["dbname"]),
        "POSTGRES_HOST": str(given.get("host") or ""),
        "POSTGRES_PORT": str(given.get("port") or 5432),
        "POSTGRES_USER": str(given["user"]),
        "POSTGRES_PASSWORD": str(given.get("password") or _kept_password(given)),
    }


def _kept_password(given: Mapping[str, Any]) -> str:
    """The user's password in the connection's password file: the library does not read those."""
    for line in Path(str(given["passfile"])).read_text().splitlines():
        *_, user, password = line.split(":")
        if user == given["user"]:
            return password
    raise KeyError(given["user"])


def main(url: str, count: str) -> None:
    """Open the sessions, then serve."""
    sessions = Sessions(env=environment(url))
    for number in range(int(count)):
        sessions.open(number)

    async def beat(request: Request) -> Response:
        orjson.loads(await request.body())
        key = request.path_params["session_id"]
        beats = await run_in_threadpool(sessions.beat, UUID(key))
        return Response(
            orjson.dumps({"session_id": key, "beats": beats}), media_type="application/json"
        )

    serve(Starlette(routes=[Route(PATH, beat, methods=["POST"])]))


if __name__ == "__main__":
    main(*sys.argv[1:])
