"""What AI coding agents carry to be on holdfast's record."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.errors import (
        ConfigurationError,
        Conflict,
        Forbidden,
        HoldfastError,
        InvalidInput,
        NotFound,
        RateLimited,
        ServiceFault,
        Unauthorized,
        Unavailable,
        Unreachable,
    )
    from holdfast.heartbeat import HeartbeatManager
    from holdfast.managed import ManagedInstance, ManagedSession, ManagedTask
    from holdfast.settings import Settings
    from holdfast.spool import Spool

__all__ = [
    "Client",
    "ConfigurationError",
    "Conflict",
    "Forbidden",
    "HeartbeatManager",
    "HoldfastError",
    "InvalidInput",
    "ManagedInstance",
    "ManagedSession",
    "ManagedTask",
    "NotFound",
    "RateLimited",
    "ServiceFault",
    "Settings",
    "Spool",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]

_MODULES = {
    "Client": "client",
    "HeartbeatManager": "heartbeat",
    "ManagedInstance": "managed",
    "ManagedSession": "managed",
    "ManagedTask": "managed",
    "Settings": "settings",
    "Spool": "spool",
}


def __getattr__(name: str) -> Any:
    """What is asked for, imported only then: a hook that only spools must not wait for more."""
    if name not in __all__:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """What there is to be asked for, too."""
    return sorted({*globals(), *__all__})
