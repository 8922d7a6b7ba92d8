"""Every URL of the project with its expected answer for each role, and the act that it writes to the audit log.

A new URL needs an entry in ``ROUTES``, a new model of the admin one in ``MODELS``; ``test_urls`` fails without.
"""

from dataclasses import dataclass, field
from typing import Any

# A logged-in user with a token of the scopes that their rights cover; the last has a token of their own alone.
ROLES = ("nobody", "read-only", "operator", "admin", "other token")
Answers = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Row:
    """One request and its answers.

    Args:
        path: With names of ``test_urls.make_sample`` in braces.
        answers: Status for each of ``ROLES``.
        act: Names of the rows in the audit log, separated by spaces.
        done_by: Roles whose request does the act.
    """

    path: str
    answers: Answers
    method: str = "GET"
    data: dict[str, Any] = field(default_factory=dict)
    act: str = ""
    done_by: tuple[str, ...] = ("operator", "admin")


def get(path: str, *answers: int) -> Row:
    """Return a row of a request that only reads."""
    return Row(path, answers)  # type: ignore[arg-type]


def post(path: str, *answers: int, act: str = "", by: tuple[str, ...] = ("operator", "admin"), **data: Any) -> Row:
    return Row(path, answers, "POST", data, act, by)  # type: ignore[arg-type]


PUBLIC = (200, 200, 200, 200, 200)
# The admin's login page is where nobody, and a token without a session, are sent.
STAFF = (302, 200, 200, 200, 302)
READERS = STAFF
OPERATORS = (302, 403, 200, 200, 302)
ADMINS = (302, 403, 403, 200, 302)
NOBODY = (302, 403, 403, 403, 302)
SENT_ON = (302, 302, 302, 302, 302)
ONLY_POST = (302, 405, 405, 405, 302)
ONLY_POST_ALLOWED = (302, 403, 405, 405, 302)
ACTS = (302, 403, 302, 302, 302)
ADMIN_ACTS = (302, 403, 403, 302, 302)


def only_post(path: str, **options: Any) -> tuple[Row, Row]:
    """Return the rows of an act that has no page."""
    return get(path, *ONLY_POST), post(path, *ACTS, **options)


def asked(path: str, **options: Any) -> tuple[Row, Row]:
    """Return the rows of an act whose page asks before."""
    return get(path, *OPERATORS), post(path, *ACTS, **options)


def pages(answers: Answers, *paths: str) -> dict[str, tuple[Row, ...]]:
    """Return the rows of pages whose routes name no thing."""
    return {path: (get(f"/{path}", *answers),) for path in paths}


def below(prefix: str, routes: dict[str, tuple[Row, ...]]) -> dict[str, tuple[Row, ...]]:
    return {prefix + route: rows for route, rows in routes.items()}


NO_ARGUMENTS, ROOM = "{{}}", "/admin/operations/"
QUEUE, ACTOR, BULK = ROOM + "queues/{queue}/", ROOM + "actors/{schedule}/", ROOM + "bulk/"
SCHEDULE, STORED = ROOM + "schedules/{schedule}/", ROOM + "schedules/{stored}/"
WORKER = ROOM + "workers/{member}/stacks/"
JOB = "/admin/switchyard_jobs/job/{job}/"
LETTERS = "/admin/switchyard_dead_letters/deadletter/"
ALERTS = "/admin/switchyard_alerts/alert/"
API = "/api/v1/"

ROOM_ROUTES: dict[str, tuple[Row, ...]] = {
    "find/": (get(ROOM + "find/?q=nothing+has+this+name", *READERS),),
    "theme/": (get(ROOM + "theme/", *ONLY_POST), post(ROOM + "theme/", *SENT_ON, theme="dark")),
    "workers/<str:member>/stacks/": (get(WORKER, *ONLY_POST), post(WORKER, 302, 403, 404, 404, 302)),
    "workers/<str:member>/stacks/<str:name>/": (get(WORKER + "1-{token:022}/", *OPERATORS),),
    "queues/<str:name>/": (get(QUEUE, *READERS),),
    "queues/<str:name>/live/": (get(QUEUE + "live/", *READERS),),
    "queues/<str:name>/pause/": asked(QUEUE + "pause/", act="queue.pause", reason="x"),
    "queues/<str:name>/resume/": asked(QUEUE + "resume/", act="queue.resume"),
    "queues/<str:name>/purge/": asked(QUEUE + "purge/", act="queue.purge", reason="x", shown="1"),
    "queues/<str:name>/purge/<str:purge_id>/undo/": only_post(QUEUE + "purge/none/undo/", act="queue.purge_undo"),
    "queues/<str:name>/relocate/": asked(
        QUEUE + "relocate/", act="queue.relocate", actor="{schedule}", to="slow", reason="x"
    ),
    "instructions/<str:verb>/": (
        get(ROOM + "instructions/quiet/", *OPERATORS),
        get(ROOM + "instructions/explode/", 302, 403, 404, 404, 302),
        post(ROOM + "instructions/quiet/", *ACTS, act="worker.quiet", member="{worker}", reason="x"),
        post(ROOM + "instructions/resume/", *ACTS, act="worker.resume", member="{quieted}"),
        post(ROOM + "instructions/stop/", *ACTS, act="worker.stop", member="{worker}", reason="x"),
    ),
    "limits/": (get(ROOM + "limits/", *READERS), get(ROOM + "limits/?limit=none", 302, 403, 404, 404, 302)),
    "limits/override/": (
        get(ROOM + "limits/override/?limit=none", 302, 403, 404, 404, 302),
        post(ROOM + "limits/override/", 302, 403, 404, 404, 302, limit="none", n="1", until="1h", reason="x"),
    ),
    "batches/<str:batch_id>/": (get(ROOM + "batches/none/", 302, 404, 404, 404, 302),),
    "queues/<str:name>/note/": only_post(QUEUE + "note/", act="queue.note", text="see you at 6"),
    "bulk/<int:number>/": (get(BULK + "{bulk}/", *READERS),),
    "bulk/<int:number>/live/": (get(BULK + "{bulk}/live/", *READERS),),
    "bulk/<int:number>/stop/": only_post(BULK + "{bulk}/stop/", act="bulk.stop"),
    "bulk/<int:number>/take-back/": (
        get(BULK + "{bulk}/take-back/", *ONLY_POST),
        post(BULK + "{bulk}/take-back/", *ACTS),
    ),
    "bulk/begin/<str:kind>/": (
        get(BULK + "begin/letter.requeue/?fingerprint={fingerprint}", *OPERATORS),
        get(BULK + "begin/letter.discard/?fingerprint={fingerprint}", *OPERATORS),
        get(BULK + "begin/letter.acknowledge/?letter={letter}", *OPERATORS),
        get(BULK + "begin/letter.restore/?letter={letter}", *OPERATORS),
        get(BULK + "begin/job.cancel_chosen/?job={job}", *OPERATORS),
        get(BULK + "begin/job.run_chosen_again/?job={job}", *OPERATORS),
        get(BULK + "begin/explode/", 302, 404, 404, 404, 302),
        post(
            BULK + "begin/letter.requeue/?fingerprint={fingerprint}", *ACTS, act="bulk.start letter.requeue", count="1"
        ),
    ),
    "schedules/<str:name>/": (get(SCHEDULE, *READERS), get(STORED, *READERS)),
    "new-schedule/": (get(ROOM + "new-schedule/", *ADMINS), get(ROOM + "new-schedule/?actor=export_dataset", *ADMINS)),
    "schedules/<str:name>/edit/": (get(STORED + "edit/", *ADMINS), get(SCHEDULE + "edit/", 302, 403, 403, 404, 302)),
    "schedules/<str:name>/delete/": (
        get(STORED + "delete/", *ADMINS),
        post(STORED + "delete/", *ADMIN_ACTS, act="schedule.delete", by=("admin",)),
    ),
    "schedules/<str:name>/run/": only_post(SCHEDULE + "run/", act="schedule.run"),
    "schedules/<str:name>/pause/": only_post(SCHEDULE + "pause/", act="schedule.pause", reason="x"),
    "schedules/<str:name>/resume/": only_post(SCHEDULE + "resume/", act="schedule.resume"),
    "note/": only_post(ROOM + "note/", act="room.note", text="see you at 6"),
    "costs/": (get(ROOM + "costs/", *READERS), get(ROOM + "costs/?by=none", 302, 403, 404, 404, 302)),
    "actors/<str:name>/": (get(ACTOR, *READERS),),
    "actors/<str:name>/pause/": asked(ACTOR + "pause/", act="actor.pause", reason="x"),
    "actors/<str:name>/resume/": asked(ACTOR + "resume/", act="actor.resume", reason="x"),
    "actors/<str:name>/open-circuit/": (
        get(ACTOR + "open-circuit/", *OPERATORS),
        post(ACTOR + "open-circuit/", 302, 403, 422, 422, 302, until="5m", reason="x"),
    ),
    "actors/<str:name>/send/": only_post(ACTOR + "send/", act="job.send"),
}
JOB_ROUTES: dict[str, tuple[Row, ...]] = {
    "live/": (get("/admin/switchyard_jobs/job/live/?shown_at=0", *READERS),),
    "<str:job_id>/": (get(JOB, *READERS),),
    "<str:job_id>/live/": (get(JOB + "live/", *READERS),),
    # The client of the tests runs under WSGI, where nothing is streamed.
    "<str:job_id>/events/": (get(JOB + "events/", 302, 501, 501, 501, 302),),
    "<str:job_id>/cancel/": asked(JOB + "cancel/", act="job.cancel"),
    "<str:job_id>/again/": asked(JOB + "again/", act="job.run_again", arguments="{{}}"),
    "<str:job_id>/run-now/": only_post(JOB + "run-now/", act="job.run_now"),
}
LETTER_ROUTES: dict[str, tuple[Row, ...]] = {
    "<int:pk>/change/": (get(LETTERS + "{letter}/change/", *READERS),),
    "quarantine/": (get(LETTERS + "quarantine/", *READERS),),
    "<int:pk>/<str:action>/do/": (
        get(LETTERS + "{letter}/requeue/do/", *ONLY_POST_ALLOWED),
        get(LETTERS + "{letter}/discard/do/", *OPERATORS),
        get(LETTERS + "{letter}/explode/do/", 302, 404, 404, 404, 302),
        post(LETTERS + "{letter}/requeue/do/", *ACTS, act="letter.requeue"),
        post(LETTERS + "{letter}/acknowledge/do/", *ACTS, act="letter.acknowledge"),
        post(LETTERS + "{letter}/discard/do/", *ACTS, act="letter.discard", reason="x"),
        post(LETTERS + "{letter}/restore/do/", *ACTS, act="letter.restore"),
    ),
    "<int:pk>/note/": only_post(LETTERS + "{letter}/note/", act="letter.note", text="x"),
    "<int:pk>/edit/": asked(LETTERS + "{letter}/edit/", act="letter.edit", arguments=NO_ARGUMENTS, reason="x"),
}
ALERT_ROUTES: dict[str, tuple[Row, ...]] = {
    "<int:pk>/change/": (get(ALERTS + "{alert}/change/", *READERS),),
    "silences/new/": asked(ALERTS + "silences/new/", act="alert.silence", span="1h", reason="x"),
    "silences/<int:pk>/end/": only_post(ALERTS + "silences/{silence}/end/", act="alert.unsilence"),
    "channels/test/": only_post(ALERTS + "channels/test/", act="alert.test", channel="log"),
    "<int:pk>/note/": only_post(ALERTS + "{alert}/note/", act="alert.note", text="see you at 6"),
    "<int:pk>/<str:verb>/do/": (
        get(ALERTS + "{alert}/acknowledge/do/", *ONLY_POST),
        post(ALERTS + "{alert}/acknowledge/do/", *ACTS, act="alert.acknowledge"),
        post(ALERTS + "{alert}/resolve/do/", *ACTS, act="alert.resolve"),
    ),
}
ROUTES: dict[str, tuple[Row, ...]] = {
    **below("admin/operations/", ROOM_ROUTES),
    **below("admin/switchyard_jobs/job/", JOB_ROUTES),
    **below("admin/switchyard_dead_letters/deadletter/", LETTER_ROUTES),
    **below("admin/switchyard_alerts/alert/", ALERT_ROUTES),
    **pages(SENT_ON, "", "admin/switchyard_schedules/schedulestate/", "admin/switchyard_operations/operationsroom/"),
    **pages(PUBLIC, "healthz", "readyz", "account/reset/done/"),
    **pages(
        READERS,
        *("admin/operations/", "admin/operations/live/", "admin/operations/steps/"),
        *("admin/operations/strip/", "admin/operations/keys/", "admin/operations/workers/"),
        *("admin/operations/workers/live/", "admin/operations/queues/", "admin/operations/batches/"),
        *("admin/operations/bulk/", "admin/operations/schedules/", "admin/operations/actors/"),
        *("admin/operations/audit/", "admin/operations/retention/", "admin/switchyard_jobs/job/"),
        *("admin/switchyard_dead_letters/deadletter/", "admin/switchyard_alerts/alert/"),
    ),
    **pages(STAFF, "admin/", "admin/password_change/", "admin/password_change/done/", "admin/jsi18n/"),
    **pages(ONLY_POST, "admin/logout/"),
    **pages(ADMINS, "admin/mail/mailbox/"),
    "metrics": (get("/metrics", *PUBLIC),),  # from loopback
    # Of the admin itself.
    "admin/login/": (get("/admin/login/", 200, 302, 302, 302, 200),),
    "admin/autocomplete/": (get("/admin/autocomplete/", 302, 403, 403, 403, 302),),
    "admin/r/<path:content_type_id>/<path:object_id>/": (get("/admin/r/0/0/", 302, 404, 404, 404, 302),),
    "admin/<app_label>/": (get("/admin/switchyard_alerts/", *READERS), get("/admin/auth/", 302, 404, 404, 200, 302)),
    "admin/(?P<url>.*)$": (get("/admin/no/such/page/", 302, 404, 404, 404, 302),),
    # Old addresses of this project.
    "admin/auth/user/<id>/password/": (get("/admin/auth/user/{user}/password/", *ADMINS),),
    # Own pages of the product apps.
    "admin/mail/mailbox/<str:name>/": (get("/admin/mail/mailbox/none.eml/", 302, 403, 403, 404, 302),),
    **{
        f"admin/{model}/<path:object_id>/download/": (get(f"/admin/{model}/0/download/", 302, 403, 403, 404, 302),)
        for model in ("reports/report", "exports/export")
    },
    "account/reset/<uidb64>/<token>/": (get("/account/reset/MQ/wrong/", *PUBLIC),),
    # API: a token that may only read sees its owner's jobs; an operator's those of everybody.
    "api/v1/": (get(API, 404, 404, 404, 404, 404),),
    "api/v1/openapi.json": (get(API + "openapi.json", *PUBLIC),),
    "api/v1/docs": (get(API + "docs", *PUBLIC),),
    "api/v1/jobs": (get(API + "jobs", 401, 200, 200, 200, 200),),
    "api/v1/jobs/<job_id>": (
        get(API + "jobs/{job}", 401, 404, 200, 200, 404),
        Row(API + "jobs/{job}", (401, 403, 202, 202, 404), "DELETE", act="job.cancel"),
    ),
    "api/v1/jobs/<job_id>/why": (get(API + "jobs/{job}/why", 401, 403, 200, 200, 403),),
    "api/v1/jobs/<job_id>/events": (get(API + "jobs/{job}/events", 401, 404, 200, 200, 404),),
    "api/v1/jobs/<job_id>/result": (get(API + "jobs/{job}/result", 401, 404, 409, 409, 404),),
    "api/v1/queues": (get(API + "queues", 401, 200, 200, 200, 200),),
    **{
        f"api/v1/{name}": (post(f"{API}{name}", 401, 403, 403, 422, 422),)
        for name in (
            *("reports", "emails", "thumbnails", "exports", "reconciliations"),
            *("webhooks/endpoints", "webhooks/events"),
        )
    },
    "api/v1/payments/events": (post(API + "payments/events", 401, 401, 401, 401, 401),),  # signed
}


@dataclass(frozen=True)
class Model:
    """A model of the admin, with Django's own pages.

    Args:
        key: Name in ``make_sample`` of a row that is there; "0" for none.
        viewers: Answers to the list for each role.
        adds: Superusers add rows.
        changes: Superusers change rows.
        deletes: Superusers delete rows.
    """

    key: str = "0"
    viewers: Answers = ADMINS
    adds: bool = False
    changes: bool = False
    deletes: bool = False


MODELS: dict[str, Model] = {
    "switchyard_api/token": Model("{token}", adds=True, changes=True, deletes=True),
    "switchyard_api/idempotentrequest": Model(deletes=True),
    "switchyard_audit/groupqueues": Model(adds=True, changes=True, deletes=True),
    "shop/customer": Model(adds=True, changes=True, deletes=True),
    "shop/invoice": Model(adds=True, changes=True, deletes=True),
    "shop/payment": Model(adds=True, changes=True, deletes=True),
    "mail/sentmail": Model(deletes=True),
    "reports/report": Model(deletes=True),
    "images/thumbnail": Model(),
    "images/picture": Model(),
    "webhooks/endpoint": Model(deletes=True),
    "webhooks/event": Model(),
    "webhooks/delivery": Model(),
    "billing/reconciliation": Model(adds=True),
    "billing/reconciliationentry": Model(),
    "billing/paymentevent": Model(),
    "exports/export": Model(deletes=True),
    "auth/group": Model("{group}", adds=True, changes=True, deletes=True),
    "auth/user": Model("{user}", adds=True, changes=True, deletes=True),
    "django_dramatiq/task": Model(),
    "switchyard_outbox/outboxrow": Model(viewers=READERS),
}


def model_rows() -> dict[str, tuple[Row, ...]]:
    """Return the rows of Django's pages of each model."""
    return {route: rows for label, model in MODELS.items() for route, rows in _rows(f"admin/{label}/", model).items()}


def _rows(prefix: str, model: Model) -> dict[str, tuple[Row, ...]]:
    page, there = f"/{prefix}{model.key}/", model.key != "0"
    add = ADMINS if model.adds else NOBODY
    # Django sends whoever may see a row's page to the admin's index when there is no such row.
    gone = tuple(302 if answer == 200 else answer for answer in model.viewers)
    deleted = (302, 403, 403, 302 if not there and model.deletes else 200 if model.deletes else 403, 302)
    return {
        prefix: (get(f"/{prefix}", *model.viewers),),
        prefix + "add/": (get(f"/{prefix}add/", *add),),
        prefix + "<path:object_id>/history/": (get(page + "history/", *(model.viewers if there else SENT_ON)),),
        prefix + "<path:object_id>/delete/": (get(page + "delete/", *deleted),),
        prefix + "<path:object_id>/change/": (get(page + "change/", *(model.viewers if there else gone)),),
        prefix + "<path:object_id>/": (get(page, *SENT_ON),),
    }
