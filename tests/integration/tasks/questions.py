"""Calls of the host's tasks, the same for every backend; run under its settings, prints the results as JSON.

``python -m tests.integration.tasks.questions QUEUE`` enqueues each call on a queue and reads its result once it has
ended: in the worker of ``django-tasks-db`` that it runs itself, or in pools that are up.
"""

import json
import sys
from datetime import timedelta
from typing import Any

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "add": ((1,), {"right": 2}),
    "echo": ((1, None, "é", [1, {"a": (2, 3)}], b"bytes"), {"named": {"1": True}, "x": 0.5}),
    "nothing": ((), {}),
    "about": (("word",), {}),
    "sleep_and_add": ((2,), {"right": 3}),
    "fail": (("out of paper",), {}),
    "divide": ((0,), {}),
    "unserialisable": ((), {}),
    "count_rows": ((), {}),
    "typed": (("2026-01-02", ["a"]), {"at": "2026-01-02T03:04:05+00:00"}),
}


def main(queue: str) -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from tests.integration.tasks.host import tasks
    from tests.integration.tasks.names import InvalidTaskError, default_task_backend, task_backends
    from tests.waiting import wait_for

    begun = timezone.now()
    results, refused = {}, {}
    for name, (args, kwargs) in CALLS.items():
        try:
            results[name] = getattr(tasks, name).using(queue_name=queue, priority=7).enqueue(*args, **kwargs)
        except InvalidTaskError as error:
            refused[name] = type(error).__name__
    if type(task_backends["default"]).__name__ == "DatabaseBackend":
        call_command("db_worker", queue_name=queue, batch=True, interval=0, startup_delay=False, verbosity=0)
    answer: dict[str, Any] = {"refused": refused}
    for name, result in results.items():
        assert result.status == "READY" and not result.is_finished

        def ended(result: Any = result) -> bool:
            result.refresh()
            return bool(result.is_finished)

        wait_for(ended, what=name)
        fresh = default_task_backend.get_result(result.id)
        assert begun - timedelta(seconds=1) <= fresh.enqueued_at <= fresh.started_at <= fresh.finished_at
        answer[name] = {each: getattr(fresh, each) for each in ("backend", "status", "args", "kwargs", "attempts")}
        answer[name] |= {
            "path": fresh.task.module_path,
            "queue": fresh.task.queue_name,
            "priority": fresh.task.priority,
            "takes_context": fresh.task.takes_context,
            "workers": len(set(fresh.worker_ids)),
            "last_is_first": fresh.last_attempted_at == fresh.started_at,
            "finished": fresh.is_finished,
            "errors": [
                {"path": error.exception_class_path, "last_line": error.traceback.strip().splitlines()[-1]}
                for error in fresh.errors
            ],
            "return_value": fresh.return_value if fresh.status == "SUCCESSFUL" else "raises",
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
