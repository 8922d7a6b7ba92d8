"""Schedules: actors with ``periodic=cron(…)``, the scheduler that sends them, and the yard's maintenance.

It keeps true:

- Each tick is sent exactly once, also with several schedulers and after a crash. One holds the lease and leads.
- Ticks that came while no scheduler ran are sent as the actor's ``catch_up`` says; those of a pause are missed.
- All times are UTC: no hour is skipped or repeated.
- A maintenance task runs in a thread of its own and delays neither ticks nor another task.

Files in reading order: ``registry`` (what is declared, and its due minutes), ``services`` (sending a tick once, and
pauses), ``runner`` (the loop of the leader, and maintenance: alerts, reconciliation, retention and the like),
``models``, ``queries``, ``views``, ``checks``.

Public: ``registry.schedules`` and ``queries`` for pages and findings; the command ``runscheduler``.
"""
