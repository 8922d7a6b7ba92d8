"""Middleware of the yard, one concern a file, on any Dramatiq broker. Imported as ``switchyard.middleware``.

It keeps true:

- The sending side refuses unknown options and wrong calls where they are written, and stamps what workers need.
- The working side decides before a start whether a message runs: is its lease still held, does this code know it, is
  it cancelled, paused or too old, did it crash its worker, is its rate spent.
- The outcome of an attempt is decided once (``outcomes``); every other middleware reads it.
- A follow-up, such as a retry, a callback or a dead letter, is put before its message is acknowledged.
- Only a ``MiddlewareError`` raised in a before-hook stops a message. After-hooks never raise: Dramatiq would log and
  drop it. A ``SpoiledAttempt`` alone may, which says that the attempt has failed although its actor returned.
- Nothing here knows Django.

Hooks run in the order of ``in_order`` in :mod:`switchyard.wiring`. A class reads its options from message, actor and
constructor, in this precedence, and lists them in ``actor_options`` and ``option_rules``.

Files in reading order: ``options``, ``arguments``, ``envelope`` and ``unique_keys`` (sending); ``crashes`` with lost
leases, ``parking``, ``cancellation``, ``circuits``, ``rate_limits`` (before a start); ``time_limits`` with
``interrupts`` (while it runs); ``outcomes``, ``retries``, ``dead_letters``, ``callbacks`` (its end); ``status``,
``logs``, ``metrics``, ``tracing``, ``error_tracker`` (what is recorded).

Public: the classes for a project that lists middleware itself, ``errors`` for actors, and the functions that pages,
checks and tests share, such as ``arguments.misfit``, ``redaction.redacted`` and ``outcomes.outcome_of``.
"""
