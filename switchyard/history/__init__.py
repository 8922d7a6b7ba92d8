"""Ended jobs and failed attempts as rows of the project's database, after they have left the broker.

It keeps true:

- No worker waits for the database: ended attempts lie in bounded streams in the broker, and what outgrows the bound
  is dropped and counted.
- One history writer works at a time, at low priority. Killed anywhere, the next one writes the same rows again.
- Retention is by age and by number, oldest first, in batches.
- Facts are kept by one process as well: minutes in the broker, hours for a year in ``FactHour``.
- A list reads one index, that of its rarest condition, and at most 10,000 rows a page.
- What an actor redacts, and what is named like a secret, is neither stored nor searched.

Files in reading order: ``models``, ``writer`` (the rows of an ended attempt, their writing and retention),
``filters`` (the names of conditions, the same on pages, in the API and in commands), ``queries``,
``fact_keeper``.

Public: ``filters``, ``queries`` and ``models.JobRow`` for the pages of jobs, actors and queues.
"""
