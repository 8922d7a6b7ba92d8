"""Processes that run the yard's work: parents of several pools, supervisors, and their children.

It keeps true:

- A supervisor holds the leases of its children, so that no task loses its message by holding the interpreter.
- A dead child is replaced at once and its messages start elsewhere; what it had finished is acknowledged for it.
- Supervisor and children end together. What ran then is known from its reports, and runs alone before it is blamed.
- No task exceeds its queue's hard limit, no child its memory limit, and no restart loop takes a processor.
- A drain returns every message that did not end. A process in a misconfigured yard does not start (exit code 78).
- A process that forks has no other threads: a supervisor is one loop over one selector, metrics and health included.

Files in reading order: ``preflight`` with ``checks`` (what must hold before a start, and the watch of the server),
``apps`` (discovery of their actors), ``pool_group`` (several pools under one parent), ``supervisor`` (one pool:
``supervisor``, ``children`` and ``processes``, ``leases``, ``hard_limits`` with quiet periods, ``report`` with counts),
``child`` (``main``, ``slot_tracking`` with the memory limit, ``hygiene``),
``shared`` (the table in memory that both see, forking, signals), ``metrics`` (of all processes of a pool).

Public: ``preflight`` for each long-running command, ``checks`` and the files of ``metrics``. Other rooms learn what
pools do from the broker's reports.
"""
