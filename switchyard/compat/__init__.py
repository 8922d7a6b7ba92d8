"""Other systems' declarations over Dramatiq's actors, so that a project moves here task by task.

What a module of this room declares is an actor of the yard like any other, and means what it meant before; an option
without a counterpart is refused, with what to write instead. Nothing of the other system is imported.

Public: ``shared_task``, ``Retry`` and ``TaskJob`` of ``celery``.
"""
