"""Findings about the yard: the overview, ``manage.py switchyard doctor`` and every page say the same ones.

It keeps true: a check yields facts, and raises nothing but the error of a server that does not answer, which
``examine`` turns into a finding; one that hangs costs its own time alone, and what explains another finding precedes it
(``finding.PRECEDENCE``).

Files in reading order: ``finding`` (with their precedence), ``facts``, ``queues`` and ``lateness``, ``pools``,
``actors`` and ``own_past``, ``records``, ``database``, ``disk``, ``servers``, then ``examine``.
"""
