"""The whole service within this very process, at an address of its own."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn

from interfaces.host import bootstrap
from interfaces.host.settings import Settings
from interfaces.http.protocol import Connection
from tests.support.waiting import eventually


@contextmanager
def service_within(database_url: str, key: str) -> Iterator[str]:
    """Its address, for the length of the block; then its process is as it was."""
    given = {"DATABASE_URL": database_url, "API_KEYS": key, "DATA_DIR": os.devnull}
    settings = Settings.load(given)
    thresholds = gc.get_threshold()
    config = uvicorn.Config(
        bootstrap.application(settings), http=Connection, ws="none", log_config=None
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            eventually(lambda: server.started, "the start of the service")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            gc.set_threshold(*thresholds)
            gc.unfreeze()
