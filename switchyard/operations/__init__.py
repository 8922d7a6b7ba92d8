"""Observation of the whole yard: findings and one verdict, the overview, workers, monitoring endpoints.

It keeps true:

- Overview, strip, ``status`` and doctor say the same findings, in the order of one table.
- A finding is an observed fact with its figures, the likely cause and the next step. One that follows from another is
  not said as well.
- Reading costs the broker a few round trips whatever waits, and no page waits for a server that does not answer: its
  part is empty, and says so. What reads one raises its error: ``BrokerError``, or Django's ``DatabaseError``.
- Commands work without the database where an operator needs them then.
- ``/readyz`` tells within 2 s whether broker and database answer.

Files in reading order: ``queries`` (queues, pools and slots as read from the broker), ``findings`` (``finding``,
``facts``, a module for each group of checks, ``examine``), ``overview`` with ``rows`` (findings to one sentence, and
what the page draws), ``past`` (what is usual at this hour), ``charts``, ``diagnosis`` (the cause that comes first),
``supervisors`` (who reports, and orders to them), ``overview_views``, ``metrics`` with ``plan`` (slots for a promise,
for autoscalers too) and ``views`` (metrics, liveness, readiness).

Public: ``findings.examine`` and ``findings.finding``, ``overview``, ``rows`` and ``queries`` for doctor, frame and
pages of queues; ``urls``. Below it: jobs, history, alerts and dead letters, of which it judges.
"""
