"""A process of its own that keeps beating and noting, as another host would.

    python -m tests.support.hammer URL SESSION_ID TIMES

prints ``ready`` and starts once a line was written to it; then prints, for each command, the
position that was acknowledged.
"""

from __future__ import annotations

import sys

from application.sessions import BeatSession, UpdateSession
from tests.support.wiring import service


def main(url: str, session_id: str, times: str) -> None:
    with service(url, projecting=False) as here:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(int(times)):
            here.do(UpdateSession(session_id=session_id, metadata={f"other-{number}": number}))
            print(here.do(BeatSession(session_id=session_id)).position, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
