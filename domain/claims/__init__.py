"""Claims and work items: state, events, rules, and what it is to hold them."""
