"""Pages and command of actors: what this code declares, how its jobs ended lately, and sending one by hand.

It keeps true: arguments are checked as those of any call before they are sent; a form that is sent twice enqueues one
job.

Files in reading order: ``queries`` (with figures from the history and the metrics of this machine), ``views``.
Public: nothing for rooms below.
"""
