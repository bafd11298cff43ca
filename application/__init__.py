"""The use cases: commands and their handlers, the engine, the event store."""
