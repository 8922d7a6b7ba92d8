"""Batches: jobs of any queues with one name, counted together, and callbacks at their end.

It keeps true:

- A member that retries has not ended. A dead one has failed; once requeued, it may still become done, and stays so.
- What ends a member notes it in the same script; the leading scheduler counts each note once, by the member's id.
- A batch is complete when it is closed, as its ``with`` block ends, and no member is open. Members may be added until
  then by anything, and by a member for as long as the batch has not succeeded.
- Each callback is enqueued once, under an id that follows from the batch: a step that was cut off is repeated.
- No batch waits for ever: a member that was never sent counts as failed after ten minutes, a batch that its maker left
  open is closed after an hour without a change.

Files in reading order: ``services`` (making and adding), ``counting`` (the scheduler's part), ``queries``, ``views``
(with acts on a batch as a whole). Public: ``services``, and ``queries`` for the rooms above.
"""
