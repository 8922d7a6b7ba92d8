"""``bin/demo``: the whole yard on one machine, with real work.

Reading order: ``__main__`` (command line), ``yard`` (which parts, in which order), ``runner`` (processes), ``state``
and ``addresses`` (folder, ports, environment), ``sample`` (one run of the work), ``work`` (the table of work and
expected outcomes, which the demo sends and ``--check`` judges), ``check``, ``job_lines``. Nothing imports this package.

True at all times: one demo a state folder; every process ends with the process of the demo (on Linux even after
``kill -9``); Django is loaded once and the parts are forked from there, which saves 120 MB; credentials and ports of a
folder survive restarts.
"""
