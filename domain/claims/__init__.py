"""Claims, work items and holders: state, events, rules."""
