"""Commands of ``manage.py switchyard``, each a class of a module of this package."""

NAMES = (
    *("run", "runpools", "runpool", "runscheduler", "runhistory", "runweb", "status", "diagnose", "doctor"),
    *("queues", "workers", "jobs", "actors", "deadletters", "history", "batches", "bulk", "schedules", "alerts"),
    *("topology", "plan", "broker", "check_backlog", "tokens"),
)
ELSEWHERE = {f"run{of.lower()}": f"run.Run{of}" for of in ("", "Pool", "Pools")}
ELSEWHERE |= {f"run{of.lower()}": f"beside.Run{of}" for of in ("Scheduler", "History", "Web")}
ELSEWHERE |= {"history": "jobs.History", "batches": "bulk.BatchesCommand", "diagnose": "status.Diagnose"}
ELSEWHERE |= {"actors": "list_actors.Command"}  # a module "actors" of an app declares actors
COMMANDS = {name: f"{__name__}.{ELSEWHERE.get(name, f'{name}.Command')}" for name in NAMES}
