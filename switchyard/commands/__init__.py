"""Commands of ``manage.py switchyard``, each a module of this package with a class ``Command``."""

NAMES = (
    *("run", "runpools", "runpool", "runscheduler", "runhistory", "runweb", "status", "diagnose", "doctor"),
    *("queues", "workers", "jobs", "actors", "deadletters", "history", "batches", "bulk", "schedules", "alerts"),
    *("topology", "plan", "broker", "check_backlog", "tokens"),
)
# A module "actors" of an app declares actors.
MODULES = {name: f"{__name__}.{'list_actors' if name == 'actors' else name}" for name in NAMES}
