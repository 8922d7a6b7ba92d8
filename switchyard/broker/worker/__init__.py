"""Parts of a consumer and its worker: prefetch, wake-up, acknowledgements, and the queue in front of the threads.

It keeps true: nothing of a message is unwritten when its acknowledgement is sent (``acks``), and an idle worker
blocks instead of polling (``prefetch``).

Files in reading order: ``prefetch`` (with wake-up and queue), ``acks``.
"""
