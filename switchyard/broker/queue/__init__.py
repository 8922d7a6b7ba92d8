"""Operations of one queue family, each a Lua script, and the values that they take and return.

It keeps true: every operation is atomic and may be repeated; those on held messages name owner, id and token.

Files in reading order: ``operations`` (producers and consumers), ``codec`` with ``json_body`` (bodies),
``arguments``, ``leases``, ``unroutable``, ``limits`` with circuits, ``administration`` (people).
"""
