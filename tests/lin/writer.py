"""A holder that is a process of its own: it beats under its fence and notes what it is told.

    python -m tests.lin.writer URL KEY SESSION_ID ITEM FENCE REFUSALS

prints a line of JSON for each answer, and ends once it was refused so many times, or
was answered as often as it will ask.
"""

from __future__ import annotations

import sys

import httpx
import orjson

MOST = 2_000


def main(url: str, key: str, session_id: str, item: str, fence: str, refusals: str) -> None:
    path = f"/api/sessions/{session_id}/heartbeat"
    body = {"claim": {"item_id": item, "fence": int(fence)}}
    refused = 0
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False) as http:
        for _ in range(MOST):
            if refused == int(refusals):
                return
            reply = http.post(path, json=body)
            refused += reply.is_error
            told = {
                "status": reply.status_code,
                "code": reply.json().get("code"),
                "position": int(reply.headers.get("X-Event-Position", 0)),
            }
            sys.stdout.buffer.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
