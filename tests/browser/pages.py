"""Every page of the project, from the table of all URLs: a new URL is walked without a line here."""

from typing import Any

import pytest

from devtools.room.yard import RoomYard
from tests.integration.project.url_table import MODELS, ROUTES, Row

ADMIN = 3  # of url_table.ROLES
# Routes that answer an admin with 200 and are no page: parts of one, JSON, files.
NO_PAGES = frozenset(
    route
    for route in ROUTES
    if route.endswith(("live/", "events/", "download/", "preview/", "events", "result", "jsi18n/", "autocomplete/"))
    or (route.startswith("api/") and route != "api/v1/docs")
    or route in ("metrics", "healthz", "readyz", "admin/operations/strip/")
)
# Pages with more to see than the row of the table shows.
MORE = [
    "/admin/switchyard_jobs/job/?state=succeeded",
    "/admin/switchyard_jobs/job/?q=no-such-thing",
    *(f"/admin/switchyard_jobs/job/{{{state}}}/" for state in ("running", "retrying", "dead", "cancelled", "expired")),
    "/admin/operations/queues/images/",
    "/admin/operations/actors/price_basket/",
    "/admin/operations/bulk/4/",
    "/admin/switchyard_dead_letters/deadletter/?q=nordwind",
    "/account/reset/MQ/wrong/",
]


class Sample:
    """Values of the names in a path."""

    def __init__(self, yard: RoomYard) -> None:
        jobs, rows, made = (yard.facts[name] for name in ("jobs", "rows", "made"))
        self._values = {
            **jobs, "job": jobs["succeeded"], "letter": made["letters"][0], "fingerprint": made["fingerprint"],
            "alert": rows["switchyard_alerts/alert"], "silence": 1, "token": int(rows["switchyard_api/token"]),
            "user": rows["auth/user"], "group": rows["auth/group"], "bulk": 1, "queue": "default",
            "schedule": "purge_delivery_attempts", "stored": "nightly export", "member": "unknown", "rows": rows,
        }  # fmt: skip

    def path(self, template: str) -> str:
        """Return a path with its names replaced; ``{rows[app/model]}`` is the key of a model's row."""
        return template.format(**self._values)


def _pages() -> list[str]:
    found = [row.path for route, rows in ROUTES.items() if route not in NO_PAGES for row in rows if _is_page(row)]
    for label, model in MODELS.items():
        row = f"/admin/{label}/{{rows[{label}]}}/"
        found.append(f"/admin/{label}/")
        if model.adds:
            found.append(f"/admin/{label}/add/")
        if label in ROWLESS:
            continue
        found += [f"{row}change/", f"{row}history/"]
        if model.deletes:
            found.append(f"{row}delete/")
    return sorted({*found, *MORE})


def _is_page(row: Row) -> bool:
    return row.method == "GET" and row.answers[ADMIN] in (200, 410)


# Models whose rows the yard does not write.
ROWLESS = frozenset({"django_dramatiq/task"})
# The model of which every page is walked; of the others, the pages with the same template are walked with --long.
EXAMPLE = "auth/user"
# Pages with the template of another one, with a few other words.
ALIKE = frozenset(
    {
        "/admin/operations/bulk/begin/letter.requeue/?fingerprint={fingerprint}",
        "/admin/operations/queues/{queue}/relocate/",
        "/admin/operations/queues/{queue}/resume/",
        *(f"/admin/operations/bulk/begin/letter.{name}/?letter={{letter}}" for name in ("acknowledge", "restore")),
        "/admin/operations/bulk/begin/job.cancel_chosen/?job={job}",
        "/admin/switchyard_jobs/job/{job}/cancel/",
        *(f"/admin/switchyard_jobs/job/{{{state}}}/" for state in ("cancelled", "expired")),
    }
)
PAGES = _pages()


def is_repeated(template: str) -> bool:
    """Return whether a page has the template of another one that is walked."""
    of = next((label for label in MODELS if template.startswith(f"/admin/{label}/")), "")
    generic = template.endswith(("/history/", "/delete/"))
    if not of.startswith("switchyard_"):
        generic |= template == f"/admin/{of}/" or template.endswith(("/add/", "/change/"))
    return template in ALIKE or (bool(of) and generic and of != EXAMPLE)


def walked() -> list[Any]:
    """Return the parameters of a test of every page: the mark ``long`` on all but the first of a folder."""
    found, seen = [], set()
    for template in PAGES:
        folder = tuple(template.split("/")[:4])
        long = is_repeated(template) or folder in seen
        found.append(pytest.param(template, marks=[pytest.mark.long] if long else []))
        if not long:
            seen.add(folder)
    return found
