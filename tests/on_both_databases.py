"""Tests that rely on the database's own behaviour: locks, constraints, upserts, ordering, text, aggregates.

They carry the marker ``database``, by which ``bin/test`` runs them on PostgreSQL as well as on SQLite. As a module it
prints them for that.
"""

# Paths below tests/: a folder stands for all of its files.
# Those of the history have a fixture `database` and run on both in every run; they are marked behind a bouncer only.
HISTORY = ("integration/history",)
PATHS = (
    "integration/alerts/test_resolution.py",
    "integration/alerts/test_command.py",
    "integration/audit/test_act.py",
    "integration/bulk/test_letters.py",
    "integration/dead_letters/test_actions.py",
    "integration/dead_letters/test_letter_list.py",
    "integration/dead_letters/test_reconcile.py",
    "integration/documentation/test_apps_of_guides.py",
    "integration/files/test_retention.py",
    "integration/middleware/test_slot_hygiene.py",
    "integration/jobs/listing/test_live_list.py",
    "integration/operations/test_capacity.py",
    "integration/outbox",
    "unit/api/test_tokens.py",
)

if __name__ == "__main__":
    print(*(f"tests/{path}" for path in PATHS), sep="\n")
