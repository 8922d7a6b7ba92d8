"""Fault injection for a development yard: harms its pools at a chosen rate and accounts for every enqueued message."""
