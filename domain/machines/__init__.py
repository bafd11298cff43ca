"""Machines: state, events, rules."""
