"""Bulk acts: one act of a person on everything that matches a filter, done by the scheduler in steps.

It keeps true: each item is done once, also when the scheduler is killed; what is done stays done when the act is
stopped; no queue holds an act up.

Files in reading order: ``kinds`` (what an act defines), ``services`` (start, stop and reads), ``runner`` (the steps),
``models``, ``views``. Public: ``kinds`` and ``services``.
"""
