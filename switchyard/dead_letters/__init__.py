"""Dead letters: messages that were given up, as rows that people triage. The broker's dead lists are the truth.

It keeps true:

- A dead letter stays until a person requeues or discards it; nothing consumes a dead list.
- A row mirrors each letter. Rows and lists that a crash left apart are reconciled by the scheduler, in bounded steps.
- A move claims the row, moves the letter, then records the result: two operators move a letter once.
- A discarded letter can be restored for 90 days. A requeued one starts with all its retries, in its live queue.
- Letters with one cause have one fingerprint. Arguments are shown by right, redacted ones never.

Files in reading order: ``models``, ``projection`` (a row for each letter), ``acts`` (on letters, each with its row
in the audit log; and their reconciliation), ``bulk_moves`` (on all that match a filter, or are ticked), ``queries``,
``presentation``, ``views``. Requeue with edited arguments is a part of jobs.

Public: ``models.DeadLetter``, ``queries``, ``projection`` for the worker's middleware and ``acts.reconcile_all`` for
the scheduler.
"""
