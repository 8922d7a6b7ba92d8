"""Alerts: reports to people about dead letters, what the overview finds, and the broker's server.

It keeps true:

- Failures with one cause are one alert with a count: the first is sent at once, then a digest every ten minutes.
- A group is raised in the broker by the worker's middleware, and sent by the leading scheduler, or a pool's process
  while none leads: no worker waits for a channel.
- That the broker is away is written and sent without it.
- Each channel sends in a thread of its own; one that hangs or fails delays no other, and is a finding of the doctor.
- A silence stops sending, not writing. While the database is away, alerts are still sent.
- One trouble calls once: failures whose dead letters were sent, and letters of failures that were, wait for its end.
- An alert is resolved by a person, or by itself once its cause has ended.

Files in reading order: ``models``, ``intake`` (a group becomes an alert and its deliveries), ``lasting`` (raised and
resolved while something lasts) with ``resolution``, ``sending`` (the scheduler's dispatch) with ``once``, ``channels``
with ``jira``, ``notice``, ``away``, ``silences``, ``acts`` (people), ``views``, ``checks``.

Public: ``sending.dispatch_due``, ``silences`` and ``lasting`` for the scheduler; ``models`` and ``notice`` for
findings and pages.
"""
