"""From a request to a downloaded export, and the admin's action and download."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient
from django.urls import reverse

from apps.exports import services
from apps.exports.models import Export
from tests.factories.callers import Caller
from tests.factories.shop import make_customer, make_invoice
from tests.factories.staff import client_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def waiting(facilities):
    return facilities.transport.stats("slow").live.waiting


def test_an_accepted_request_ends_as_a_file_that_its_owner_downloads(facilities, run_worker):
    make_invoice()
    caller = Caller()

    answer = caller.post("/exports", {"dataset": "invoices", "format": "csv"})
    with run_worker("slow"):
        wait_for(lambda: facilities.records.read(answer.json()["job_id"]).ended)
    job = caller.get(f"/jobs/{answer.json()['job_id']}").json()

    assert answer.status_code == 202
    assert (job["state"], job["result"]["rows"]) == ("succeeded", 1)
    assert job["progress"]["done"] == job["progress"]["total"] == 1
    assert job["result_url"].endswith("/result")


def test_the_admin_exports_again(admin_client, facilities):
    services.export("customers", "csv", job_id="j1")
    services.export("customers", "csv", job_id="j2")
    chosen = list(Export.objects.values_list("pk", flat=True))
    form = {"action": "export_again", "_selected_action": chosen}

    page = admin_client.post(reverse("admin:exports_export_changelist"), form, follow=True)

    assert waiting(facilities) == 1
    assert "1 export is on the way." in page.content.decode()


def test_the_admin_hands_out_the_file_to_who_may_see_it():
    make_customer(name="Ada")
    services.export("customers", "csv", job_id="j1")
    address = reverse("admin:exports_export_download", args=[Export.objects.get().pk])
    viewer, other = (User.objects.create_user(name, is_staff=True) for name in ("viewer", "other"))
    viewer.user_permissions.add(Permission.objects.get(codename="view_export"))

    allowed = download(viewer, address)
    refused = download(other, address)

    assert allowed[0] == 200
    assert '"Ada"' in allowed[1]
    assert refused[0] == 403


def test_a_file_that_is_gone_is_not_found(admin_client, storage):
    services.export("customers", "csv", job_id="j1")
    export = Export.objects.get()
    (storage / export.file).unlink()

    assert admin_client.get(reverse("admin:exports_export_download", args=[export.pk])).status_code == 404


def download(user, address):
    client = client_of(user)
    asked = AsyncClient()
    asked.cookies = client.cookies

    async def fetch():
        answer = await asked.get(address)
        if not answer.streaming:
            return answer.status_code, answer.content.decode()
        return answer.status_code, b"".join([part async for part in answer.streaming_content]).decode()

    return asyncio.run(fetch())
