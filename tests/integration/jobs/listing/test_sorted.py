"""The list of jobs in other orders: by a click on a heading, in the address, by the command and by the API."""

from __future__ import annotations

import html
import re

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.history import queries
from switchyard.jobs.services import submit
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row

LIST = reverse("switchyard-jobs")


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def heading(page: str, text: str) -> tuple[str, str]:
    """Return direction and address of a heading."""
    found = re.search(rf'<th scope="col"[^>]*?(?:aria-sort="(\w+)")?><a class="sy-sort" href="([^"]*)">{text}<', page)
    assert found is not None, text
    return found[1] or "", html.unescape(found[2])


def test_clicks_on_a_heading_sort_what_has_ended(admin_client: Client) -> None:
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    quick, slow, middle = (job_row(run_ms=run_ms) for run_ms in (5, 900, 70))
    plain = admin_client.get(LIST, {"actor": "probe_add"}).content.decode()
    assert heading(plain, r"Time \(UTC\)")[0] == "descending"

    first = admin_client.get(LIST + heading(plain, "Ran")[1])
    second = admin_client.get(LIST + heading(first.content.decode(), "Ran")[1])

    assert [line.id for line in first.context["page"].jobs] == [slow.job_id, middle.job_id, quick.job_id]
    assert [line.id for line in second.context["page"].jobs] == [quick.job_id, middle.job_id, slow.job_id]
    assert heading(first.content.decode(), "Ran")[0] == "descending"
    assert heading(second.content.decode(), "Ran") == ("ascending", "?actor=probe_add")
    text = first.content.decode()
    assert "The longest run first: jobs that have ended, without those that never started" in text
    assert '<input type="hidden" name="sort" value="-run">' in text and 'aria-label="Order"' in text


def test_a_sorted_list_has_pages_and_says_among_how_many_it_was_sorted(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LOOKED_THROUGH", 55)
    rows = [job_row(wait_ms=number) for number in range(60)]

    first = admin_client.get(LIST, {"sort": "-wait"})
    second = admin_client.get(LIST + first.context["older"])

    listed = [line.id for page in (first, second) for line in page.context["page"].jobs]
    assert len(listed) == 55 and set(listed) <= {row.job_id for row in rows}
    assert "Sorted among the newest 10,000" in first.content.decode()
    assert "First page" in second.content.decode() and "Next page" not in second.content.decode()
