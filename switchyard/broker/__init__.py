"""Transport of messages on a Redis or Valkey server, and the interface by which all else uses any broker.

It keeps true:

- A message is in exactly one place. Each move is one Lua script: it happens as a whole, or not at all.
- An owner, one lane of one child, holds messages by a lease and by tokens that only grow. A call with an older token
  changes nothing and says so.
- A call may be repeated: it answers the same and changes nothing more. It ends within its time, with an error that
  says whether it may have happened.
- Every key comes from ``keys``; those of a queue family share its hash tag. The server's clock decides due times and
  leases.
- Nothing here knows Django, and nothing polls where it can block.

Files in reading order: ``topology`` (what a yard declares), ``interface`` (what middleware and services may ask for),
``yard_broker`` and ``redis_broker`` with ``consumer`` (Dramatiq's broker and consumer), ``held_message`` and
``transport`` (messages that a worker holds, and their moves), ``portable_transport`` (the same on a broker that only
enqueues). Then, from below: ``keys``, ``redis`` (the one access to the server), ``queue`` (operations of a queue
family), ``stores`` (records, dead lists, locks, reports), ``worker`` (a consumer's parts), ``admin`` (acts of
people), ``health`` (the server's state). The scripts are in ``lua``.

Public for other rooms: ``errors``, ``topology``, ``interface``, ``clock`` and ``shapes``; of the rooms below what
services read and do, most of it in ``stores`` and ``admin``. Middleware moves messages through the ``Transport`` of
``interface`` alone.

How it works and why nothing is lost: docs/explanation/broker.md. Every key: docs/reference/keys.md.
"""
