"""Where this process runs: its machine, terminal and working folder."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from contextlib import suppress

from holdfast import names
from holdfast.additions import AddedText
from holdfast.facts import fact
from holdfast.secrets import masked
from holdfast.types import Json


def this_machine() -> str:
    """The name under which this machine is known: its host name, or its hardware address."""
    return names.fit(socket.gethostname() or f"{uuid.getnode():012x}")


def whereabouts() -> Json:
    """Host name, terminal and working folder, as far as there are any."""
    found: Json = {"hostname": this_machine()}
    with suppress(OSError, AttributeError, ValueError):
        found["tty"] = fact(os.ttyname(sys.stdin.fileno()))
    with suppress(OSError):
        found["codebase"] = fact(masked(os.getcwd()))
    return {name: AddedText(value) for name, value in found.items() if value is not None}
