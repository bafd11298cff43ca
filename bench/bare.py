"""The endpoint to compare with: parses the body, stores nothing.

python -m bench.bare
"""

from __future__ import annotations

import socket

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH = "/api/sessions/{session_id}/heartbeat"


async def beat(request: Request) -> Response:
    """Answer with what can be known without a store."""
    fields = orjson.loads(await request.body())
    reply = {"session_id": request.path_params["session_id"], "fields": len(fields)}
    return Response(orjson.dumps(reply), media_type="application/json")


def serve(app: Starlette) -> None:
    """Serve with the settings of the product's server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"bench serves on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            app,
            loop="auto",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(Starlette(routes=[Route(PATH, beat, methods=["POST"])]))
