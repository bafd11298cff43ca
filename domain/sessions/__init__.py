"""Sessions and their tasks: state, events, rules."""
