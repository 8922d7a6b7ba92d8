"""HTTP API: its application, tokens, problem documents, idempotency keys and limits. Each app mounts its router on it.

It keeps true:

- Every error is a problem document (RFC 9457); a refused POST says whether its work was enqueued.
- A repeated ``Idempotency-Key`` returns the first response, and its work is done once.
- A token has no scope that its owner's rights did not cover; its secret is stored as a hash.
- Bodies are bounded in size and time before Django reads them, and a caller has a share of the request places.

Files in reading order: ``application``, ``auth`` with ``tokens``, ``parsing`` and ``schemas``, ``idempotency`` with
``request_jobs``, ``problems`` with ``exception_handlers`` and ``middleware``, ``request_limits``, ``responses``.

Public: ``auth``, ``schemas``, ``responses``, ``problems`` and ``parsing`` for routers of products; ``request_jobs``
for routes that write rows; ``middleware.problem_documents`` and ``request_limits.RequestLimits`` for projects.
"""
