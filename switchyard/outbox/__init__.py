"""Sends inside of a database transaction: they wait for its commit, and with the outbox are rows of it.

Kept true: a rollback, also of a savepoint, sends nothing. With ``SENDS = "outbox"`` a commit and its messages are one:
the message is a row of the transaction, which is deleted after the broker has the message, and never before. A row that
is sent twice, by its process and by the relay, is one job: the broker knows its id for 10 minutes, the history longer.

Files in reading order: ``sends`` (keeps what is sent until the commit), ``models`` and ``rows`` (the table, and its
metrics), ``relay`` (a thread of the history process that sends what is left), ``admin``.

Public: ``rows.waiting_job`` and ``rows.cancel_waiting`` for pages and API, ``rows.figures`` for metrics and findings.
"""
