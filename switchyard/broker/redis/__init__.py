"""Access to the Redis or Valkey server: connections, scripts, and calls within a time budget.

It keeps true: a call ends within its budget, as an answer, ``BrokerRefused``, or ``BrokerUnavailable`` whose outcome
says whether it may have happened; a script is sent by its hash and loaded when the server lacks it.

Files in reading order: ``connections``, ``calls``, ``scripts``, ``server_errors``, ``sentinel``.
"""
