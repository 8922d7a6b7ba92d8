"""Schedules: of actors with ``periodic=cron(…)`` and of rows, the scheduler that sends them, and maintenance.

It keeps true:

- Each tick is sent exactly once, also with several schedulers and after a crash. One holds the lease and leads.
- Ticks that came while no scheduler ran are sent as the actor's ``catch_up`` says; those of a pause are missed.
- A change of the clocks skips and repeats no tick of an expression that names hours; times are kept in UTC.
- A row that cannot be used is named and delays no other schedule.
- A maintenance task runs in a thread of its own and delays neither ticks nor another task.

Files in reading order: ``registry`` (due minutes, a schedule, what is declared, its checks), ``rows`` (stored
schedules), ``services`` (settling a tick once, and pauses), ``runner`` (the loop of the leader, and maintenance:
alerts, reconciliation, retention and the like), ``models``, ``queries`` (with the import of
django-celery-beat's rows), ``views``.

Public: ``registry.schedules``, ``rows.all_schedules`` and ``queries`` for pages and findings; the command
``runscheduler``.
"""
