"""Tests that rely on the database's own behaviour: locks, constraints, upserts, ordering, text, aggregates.

They carry the marker ``database``, by which ``bin/test`` runs them on PostgreSQL as well as on SQLite.
"""

from __future__ import annotations

# Paths below tests/: a folder stands for all of its files.
PATHS = (
    "integration/alerts/test_counts.py",
    "integration/alerts/test_resolution.py",
    "integration/alerts/test_silences.py",
    "integration/audit/test_act.py",
    "integration/audit/test_halfway.py",
    "integration/audit/test_log.py",
    "integration/bulk/test_cancel.py",
    "integration/bulk/test_letters.py",
    "integration/dead_letters/test_actions.py",
    "integration/dead_letters/test_letter_filter.py",
    "integration/dead_letters/test_projection.py",
    "integration/dead_letters/test_reconcile.py",
    "integration/history/test_priority.py",
    "integration/history/test_queries.py",
    "integration/history/test_retention.py",
    "integration/history/test_writer.py",
    "integration/jobs/listing",
    "unit/api",
)
