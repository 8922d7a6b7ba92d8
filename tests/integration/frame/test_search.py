"""The search by anything: what it finds and what a right hides; pages are the same in every locale."""

import re

import dramatiq
import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from switchyard.alerts.models import Alert
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.bulk.models import BulkAct
from switchyard.console.links import actor_url, job_url, queue_url
from switchyard.dead_letters import projection
from switchyard.dead_letters.models import DeadLetter
from switchyard.history.models import SearchValue
from tests.factories.alerts import make_alert
from tests.factories.brokers import broker_without_server
from tests.factories.letters import letter
from tests.factories.pages import text_of
from tests.factories.staff import client_of
from tests.integration.jobs.history_rows import job_row
from tests.integration.project.test_urls import make_sample
from tests.integration.project.url_table import ROLES, ROUTES

pytestmark = pytest.mark.django_db
FIND = reverse("switchyard-find")
PAGES = [
    row.path
    for rows in ROUTES.values()
    for row in rows
    if row.method == "GET"
    and row.answers[ROLES.index("admin")] == 200
    and re.match(r"/admin/(operations|switchyard_\w+/\w)", row.path)
    and "events/" not in row.path
]
# Differs between two answers to the same request: rates need a reading before.
ONCE = re.compile(
    r'name="(csrfmiddlewaretoken|form_id|job_id)" value="[\w-]+"|(?<=ends</h2>)<p class="sy-small">.*?</p>|'
    r"\blast \d+(\.\d)? s\b|–|\b\d+(\.\d)? ?/(min|s)\b"
)
BIG = 1_795_628


def found(client: Client, asked: str) -> str:
    answer = client.get(FIND, {"q": asked})
    assert answer.status_code == 200, answer.get("Location")
    page = answer.content.decode()
    return page[page.index("<main") : page.index("</main>")]


def leads_to(client: Client, asked: str) -> str:
    answer = client.get(FIND, {"q": asked})
    assert answer.status_code == 302, text_of(answer.content.decode())
    return str(answer["Location"])


@pytest.fixture
def ended_job(facilities):
    """A job that has ended, with an owner and an argument that it is found by."""
    where = {"actor": "generate_report", "queue": "slow", "lane": "slow"}
    row = job_row(**where, owner="tenant:77", arguments='{"customer_id": 4711}')
    SearchValue.objects.create(name="customer_id", value="4711", job_id=row.job_id, finished_at=row.finished_at)
    return row


def test_a_whole_name_or_id_leads_there_and_a_part_of_a_name_lists_what_has_it(admin_client, ended_job):
    page = found(admin_client, "re")

    assert leads_to(admin_client, ended_job.job_id.upper()) == job_url(ended_job.job_id)
    assert leads_to(admin_client, "generate_report") == actor_url("generate_report")
    assert leads_to(admin_client, "billing") == queue_url("billing")
    assert f'href="{actor_url("generate_report")}"' in page
    assert f'href="{queue_url("retries")}"' not in page  # a pool's name, no queue's


def test_an_argument_is_found_by_name_and_by_value(admin_client, ended_job):
    assert "customer_id" in dramatiq.get_broker().actors["generate_report"].options["search"]

    assert leads_to(admin_client, "customer_id=4711").endswith("?argument=customer_id%3D4711")
    assert leads_to(admin_client, "4711").endswith("?argument=customer_id%3D4711")


def test_a_letter_is_found_by_its_error_and_its_group(admin_client, facilities):
    projection.project_or_log(letter())
    row = DeadLetter.objects.get()

    assert f"?fingerprint={row.fingerprint}" in found(admin_client, row.exception)
    assert leads_to(admin_client, row.fingerprint).endswith(f"?fingerprint={row.fingerprint}")


def test_an_alert_is_found_by_title_and_number(admin_client, facilities):
    alert = make_alert(title="The moon is late", severity="warning", kind="rule")

    for asked in ("moon is", f"A-{alert.pk}"):
        assert f"A-{alert.pk}, open" in text_of(found(admin_client, asked))


def test_a_worker_is_found_by_its_host(admin_client, facilities):
    now = now_ms()
    facilities.pools.write(
        PoolReport(
            pool="slow", host="yard-7", pid=4, kind="threads", slots=2, busy=1, started_at=now, beat_at=now, state="up"
        )
    )

    assert "slow on yard-7, pid 4" in text_of(found(admin_client, "yard-7"))


def test_rights_hide_what_their_pages_hide(watcher, ended_job):
    projection.project_or_log(letter())

    assert "Nothing here is named" in text_of(found(watcher, ended_job.job_id))
    assert "Nothing here is named" in text_of(found(watcher, "tenant:77"))
    assert "Nothing here is named" in text_of(found(watcher, DeadLetter.objects.get().exception))


def test_without_the_broker_the_search_says_what_it_did_not_search(admin_client):
    with broker_without_server():
        page = text_of(found(admin_client, "generate"))

    assert "Not searched, because the broker or the database does not answer: jobs, workers" in page
    assert "generate_report" in page


@pytest.fixture
def sample(valkey):
    """One of each thing, with numbers that have separators."""
    made = make_sample()
    DeadLetter.objects.filter(pk=made.letter).update(id=BIG)
    Alert.objects.filter(pk=made.alert).update(count=BIG)
    BulkAct.objects.filter(pk=made.bulk).update(total=BIG)
    report = PoolReport(
        pool="slow", host="vm", pid=BIG, kind="threads", slots=4, busy=1, state="up", started_at=now_ms() - 90_500,
        beat_at=now_ms(), children=[{"pid": BIG, "ready": True, "busy": 1, "done": 1_500, "rss_bytes": BIG}],
    )  # fmt: skip
    facilities().pools.write(report)
    valkey.persist(Keys().pool_report(report.member))  # it lasts until every page was read twice
    made.letter = BIG
    return made


@pytest.fixture
def browser():
    """A superuser's browser, at one moment."""
    client = client_of(User.objects.create_superuser("ada"))
    with time_machine.travel(timezone.now(), tick=False):
        yield client


def test_pages_do_not_depend_on_the_locale(browser, sample, settings):
    differ: dict[str, list[tuple[str, str]]] = {}
    for page in PAGES:
        address = page.format(**vars(sample))
        plain = shown(browser, address)
        settings.USE_THOUSAND_SEPARATOR = True
        with timezone.override("Europe/Berlin"), translation.override("de"):
            abroad = shown(browser, address)
        settings.USE_THOUSAND_SEPARATOR = False
        pairs = zip(plain.splitlines(), abroad.splitlines(), strict=False)
        differ[address] = [pair for pair in pairs if pair[0] != pair[1]][:3]

    assert len(PAGES) > 40
    assert {page: pairs for page, pairs in differ.items() if pairs} == {}


def shown(browser: Client, address: str) -> str:
    answer = browser.get(address)
    assert answer.status_code == 200, address
    return ONCE.sub("", answer.content.decode())
