"""Jobs: messages that somebody follows. A job's id is its message's id.

It keeps true:

- One way of each act, for page, command and API: submit, send, cancel, run now and run again are functions
  here.
- A job that is sent for a transaction is sent at its commit, or not at all; its id is known at once.
- A repeated request finds the job of its first run, and ``once`` commits database effects at most once.
- A job is found wherever it is: in its message, its record, its dead letter, then in the history.
- Arguments are shown with the right to see them, redacted ones and probable secrets never.
- A result is kept for as long as its actor says; a store that fails costs a job seconds and the record takes over.

Files in reading order: ``services`` (sending, progress, cancellation), ``queries`` with ``presentation`` (a job as it
is shown), ``once``, ``results`` with ``storage``, ``calls`` (arguments that a person writes),
``pauses`` (of actors), ``api`` with ``live`` (events), ``request_origin``. Pages: ``listing``, ``passport`` (one job,
and ``why`` it has not run), ``bulk`` (acts on all that match a filter).

Public: ``services``, ``queries``, ``results``, ``once`` and ``request_origin.request_origin``.
"""
