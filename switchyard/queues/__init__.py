"""Pages and acts on queues: pause, purge, relocate, and the import of what stock Dramatiq left.

It keeps true:

- An act is written to the audit log before it begins. Pausing and resuming work without the database.
- A purge sets messages aside whole; within a minute it can be undone, and only the scheduler drops them.
- Page, list and command say the same sentences, from one reading of the broker.
- An override of a limit has its end with it: no process has to end it.
- An import enqueues here, then acknowledges there: killed in between, it is run again.

Files in reading order: ``services`` (the acts; what limits and circuits hold back, and overrides), ``queries`` (what is
read, and its sentences), ``stock`` (import), ``views``.

Public: nothing for rooms below; products and projects use the commands and pages.
"""
