"""Fault injection for a development yard: faults at a chosen rate, and an account of every enqueued message."""
