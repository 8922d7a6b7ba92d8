"""Data of the yard beside its queues: job records, dead lists, the quarantine, alert groups, locks, reports of pools.

It keeps true: a record may lag behind its job and never misses an end; what has no end of its own has a bound or an
expiry.

Files in reading order: ``history_streams`` with the steps of jobs (what a worker records), ``job_records`` with
``job_record`` (reads), ``dead_lists``, ``alert_groups``, ``pool_reports``, ``yard_facts``,
``limit_counts`` (with locks and windows).
"""
