"""Addresses of services, and when two of them are one. Needs the standard library only."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
OWN_ADDRESS = "127.0.0.1"
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# Up to the last @ before the path, also of what is no address.
_USER = re.compile(r"//[^/?#]*@")


def shown(url: str) -> str:
    """An address as it may be told to anyone: without the name and password that it may hold."""
    return _USER.sub("//", url)


def normal(url: str) -> str:
    """The one form of an address, under which all that waits for it is kept.

    Lower case, no default port, no slash at its end; this machine's loopback has one name.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    host = OWN_ADDRESS if host in OWN_NAMES else f"[{host}]" if ":" in host else host
    port = parts.port if parts.port is not None else DEFAULT_PORTS.get(scheme)
    shown = "" if port == DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{host}{shown}{parts.path.rstrip('/')}"
