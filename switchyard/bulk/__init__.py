"""Bulk acts: one act of a person on everything that matches a filter, done by a job in steps.

It keeps true: each item is done once, also when the job is killed; what is done stays done when the act is stopped; a
lost message is enqueued again. The room knows no kind of act: apps register theirs when they are ready.

Files in reading order: ``kinds`` (what an app registers), ``services`` (start, stop and reads), ``actors`` (the job),
``models``, ``views``. Public: ``kinds`` and ``services``.
"""
