"""MCP: tools made from the table of operations, and where they are reached."""
