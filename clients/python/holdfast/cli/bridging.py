"""``holdfast mcp``"""

from __future__ import annotations

import sys

from holdfast.cli.failing import exit_code


def mcp() -> None:
    """Offer the service's MCP tools by stdio, to agents that start their MCP servers themselves."""
    from holdfast.settings import Settings
    from holdfast.stdio import Bridge

    with exit_code():
        Bridge(Settings.load(), sys.stdin.buffer, sys.stdout.buffer).run()
