"""``holdfast mcp``"""

from __future__ import annotations

import sys

from holdfast.cli.failing import exit_code


def mcp() -> None:
    """Serve the service's MCP tools over stdio, for agents that start their own MCP servers."""
    from holdfast.settings import Settings
    from holdfast.stdio import Bridge

    with exit_code():
        Bridge(Settings.load(), sys.stdin.buffer, sys.stdout.buffer).run()
