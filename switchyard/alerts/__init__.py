"""Alerts: reports to people about dead letters, what the overview finds, and the broker's server.

It keeps true:

- Failures with one cause are one alert with a count: the first is sent at once, then a digest every ten minutes.
- Workers raise groups in the broker; the leading scheduler sends them, or a pool's process while none leads.
- Alerts are sent while broker or database is away. A channel that hangs or fails delays no other.
- A silence stops sending, not writing.
- One trouble calls once: failures whose dead letters were sent, and letters of failures that were, wait for its end.
- An alert is resolved by a person, or by itself once its cause has ended.

Files in reading order: ``models``, ``intake`` (a group becomes an alert and its deliveries, and alerts end),
``sending`` (the scheduler's dispatch; raised and resolved while something lasts), ``channels`` with ``jira``,
``notice`` (with silences, and what was told before), ``acts`` (people), ``views``, ``checks``.

Public: ``sending`` for the scheduler; ``models`` and ``notice`` for findings and pages.
"""
