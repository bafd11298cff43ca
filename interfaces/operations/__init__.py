"""The table of everything that can be asked of the service.

HTTP, the OpenAPI document and MCP are made from it. A command is a model of ``application`` with
a handler there; a query reads from ``projections``; an action sends many commands. Each module has
the rows of its area in the order in which paths are matched: the busiest first, a fixed path
before a variable one.
"""

from __future__ import annotations

from interfaces.operations import claims, events, instances, serving, sessions
from interfaces.operations.base import ActionParams, ActionResult, Operation, Services

__all__ = ["OPERATIONS", "ActionParams", "ActionResult", "Operation", "Services"]

OPERATIONS: tuple[Operation, ...] = (
    *sessions.ROWS,
    *instances.ROWS,
    *claims.ROWS,
    *events.ROWS,
    *serving.ROWS,
)
