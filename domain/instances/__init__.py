"""Instances: state, events, rules, hierarchy, resuming."""
