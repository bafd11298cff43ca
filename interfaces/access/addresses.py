"""Who is at the other end, as far as its address tells."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4_096)
def neighbourhood(address: str) -> str:
    """The address, or the /64 network of an IPv6 one: whoever has one of these has them all."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


@lru_cache(maxsize=4_096)
def is_loopback(address: str) -> bool:
    """Whether it is this machine."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback or (
        parsed.version == 6 and parsed.ipv4_mapped is not None and parsed.ipv4_mapped.is_loopback
    )
