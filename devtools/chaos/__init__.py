"""Chaos for a development yard: harms its pools at a chosen rate, and keeps the ledger of what became of the work."""
