"""The frame of every page: menu, verdict, policy, theme, refusals, other admin sites; acts while the broker is away."""

import html
import re
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import include, path, reverse
from periodiq import cron

from switchyard.api.admin import TokenAdmin
from switchyard.api.models import Token
from switchyard.broker.queue.operations import Entry
from switchyard.conf import switchyard_settings
from switchyard.console.links import actor_url, admin_site, queue_url
from switchyard.console.room_view import SWITCHED_OFF
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.frame.templatetags.switchyard_frame import room_frame
from switchyard.frame.views import STRIP
from switchyard.jobs.templatetags.switchyard_jobs import named
from switchyard.operations import overview
from switchyard.operations.admin import LISTS, RoomEntry
from switchyard.setting_values import InvalidSetting
from switchyard.workers.checks.installation import addresses
from tests.factories.brokers import broker_without_server
from tests.factories.letters import letter as a_letter
from tests.factories.pages import text_of
from tests.integration.jobs.history_rows import job_row
from tests.integration.operations.test_overview import Seen
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
ACTOR = "generate_report"
EVIL = "\x1b]0;evil\x07 \x9b2J"
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def link(address: str, name: str) -> str:
    return f'<a class="sy-link sy-code" href="{address}">{name}</a>'


def test_actors_and_the_subject_are_links():
    shown = named(f"slow is 7.2 × behind, because 2 × {ACTOR} hold all slots of slow.", "slow")

    assert shown.startswith(f"{link(queue_url('slow'), 'slow')} is 7.2 × behind")
    assert f"2 × {link(actor_url(ACTOR), ACTOR)} hold all slots of slow." in shown


def test_everything_is_escaped_and_backticks_are_code():
    assert named("<b> of `<i>`", "<b>") == '&lt;b&gt; of <code class="sy-code">&lt;i&gt;</code>'
    assert named("one ` alone <b>") == "one ` alone &lt;b&gt;"


QUEUES, OVERVIEW, THEME = reverse("switchyard-queues"), reverse("switchyard-operations"), reverse("switchyard-theme")
PAGES = [
    reverse(name)
    for name in (
        *("switchyard-operations", "switchyard-queues", "switchyard-actors", "switchyard-operations-workers"),
        *("switchyard-schedules", "switchyard-audit", "switchyard-retention", "switchyard-batches"),
        *("switchyard-limits", "switchyard-bulk-acts", "switchyard-find", "switchyard-keys"),
        *("switchyard-quarantine", "admin:index", "admin:password_change"),
    )
]


def entries(page: str) -> list[str]:
    """Return the names of the menu, in order."""
    menu = page[page.index('class="sy-nav-group"') : page.index("sy-side-user")]
    return [text_of(link) for link in re.findall(r"<a [^>]*>.*?</a>", menu, re.DOTALL)]


def test_the_menu_has_the_room_and_the_apps_of_the_admin_that_the_user_may_see(admin_client, watcher):
    page = admin_client.get(QUEUES).content.decode()

    assert "|".join(entries(page)) == (
        "Overview|Queues|Limits|Actors|Workers|Jobs|Batches|Schedules|Dead letters|Alerts|Bulk acts|Audit log|"
        "Retention|API|Audit and rights|Authentication and Authorization|Billing|Exports|Images|Mail|Outbox|Reports|"
        "Shop|Webhooks"
    )
    assert re.search(rf'<a href="{QUEUES}" aria-current="page"', page)
    seen = ["Overview", "Queues", "Limits", "Actors", "Workers", "Retention"]
    assert entries(watcher.get(QUEUES).content.decode()) == seen


def test_every_page_but_the_overview_has_the_verdict(admin_client):
    assert 'id="sy-strip"' not in admin_client.get(OVERVIEW).content.decode()

    page = admin_client.get(QUEUES).content.decode()

    assert STRIP.verdict().verdict.sentence in text_of(page)
    assert 'id="sy-strip"' in page


@pytest.mark.parametrize("address", PAGES)
def test_no_page_has_a_script_or_a_handler_in_it(admin_client, address):
    answer = admin_client.get(address)

    assert answer.status_code == 200
    assert [name for name in Seen(answer.content.decode()).inline if name != "style"] == []
    script = re.search(r"script-src ([^;]*)", answer["Content-Security-Policy"])
    assert script is not None and script[1] == "'self'"


def test_a_refusal_has_the_policy_as_well(admin_client, client):
    for answer in (
        client.get("/", headers={"host": "not served.example"}),
        client.get("/nowhere/"),
        client.get(QUEUES),
        Client(enforce_csrf_checks=True).post(reverse("admin:login"), {}),
        admin_client.get("/static/nothing.css"),
    ):
        assert answer.status_code in (302, 400, 403, 404)
        assert "script-src 'self';" in answer["Content-Security-Policy"], answer.status_code


def test_no_list_or_form_has_a_script_or_a_handler_in_it(admin_client, admin_user):
    request = RequestFactory().get("/")
    request.user = admin_user

    for model, page in admin.site._registry.items():
        names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        lists = [reverse(f"{names}_changelist")]
        for address in [*lists, *([reverse(f"{names}_add")] if page.has_add_permission(request) else [])]:
            shown = admin_client.get(address, follow=True).content.decode()
            assert [name for name in Seen(shown).inline if name != "style"] == [], address
            assert "switchyard_frame/admin.css" in shown or "switchyard_frame/frame.css" in shown, address


def test_a_theme_leads_to_no_other_site_and_takes_no_other_word(admin_client):
    assert admin_client.post(THEME, {"theme": "dark", "next": "https://evil.example/"})["Location"] == OVERVIEW
    assert admin_client.post(THEME, {"theme": "dark", "next": "no-page"})["Location"] == "no-page"
    assert admin_client.post(THEME, {"theme": '"><script>'}).status_code == 400


def test_what_is_remembered_is_no_business_of_scripts_or_of_other_sites(admin_client):
    admin_client.post(THEME, {"theme": "dark", "keys": "off"}, secure=True)
    admin_client.get(f"{OVERVIEW}?yard=table", secure=True)

    for name in ("switchyard_theme", "switchyard_keys", "switchyard_yard"):
        cookie = admin_client.cookies[name]
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax"), name


def test_refused_page_names_the_missing_right_in_any_project(watcher, settings):
    settings.TEMPLATES = [{**engine, "DIRS": []} for engine in settings.TEMPLATES]  # without this project's own pages

    answer = watcher.get(reverse("switchyard-queue-pause", args=["default"]))

    page = answer.content.decode()
    assert answer.status_code == 403 and "The missing right is switchyard_operations.pause_queue." in page
    assert f'href="{reverse("switchyard-operations")}">To the overview</a>' in page and 'id="menu"' in page


def test_address_that_leads_nowhere_says_so_in_the_frame_and_a_stranger_sees_no_menu(watcher, client):
    unknown = watcher.get("/admin/no/<b>such</b>/page/")
    gone = watcher.get(reverse("switchyard-queue", args=["no-such"]))
    strange = client.get("/no/such/page/")

    assert unknown.status_code == gone.status_code == strange.status_code == 404
    page, seen = unknown.content.decode(), strange.content.decode()
    assert "/admin/no/%3Cb%3Esuch%3C/b%3E/page/" in page and 'id="menu"' in page and "Http404" not in page
    assert "The topology has no queue no-such." in gone.content.decode()
    assert "There is nothing at this address" in seen and 'id="menu"' not in seen and "Resolver404" not in seen


def shown(client: Client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200
    text = page.content.decode()
    assert not CONTROL.search(text)
    return text


def test_a_jobs_error_is_escaped_on_its_page_and_in_lists(admin_client):
    row = job_row(state="dead", error_type="ValueError", error_message=EVIL, fingerprint="f00d", owner=EVIL)

    assert r"\x1b]0;evil\x07 \x9b2J" in shown(admin_client, reverse("switchyard-job", args=[row.job_id]))
    assert r"\x1b]0;evil" in shown(admin_client, reverse("switchyard-jobs") + "?state=dead")


@pytest.mark.django_db(transaction=True)
def test_the_name_of_a_parked_actor_is_escaped_on_the_page_of_its_queue(facilities, run_worker, admin_client):
    body = rb'{"actor":"unknown\u0000\u001b[2J","sent_at":1}'
    dramatiq.get_broker().families["default"].enqueue([Entry("parked", body)])
    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").parked)

    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-queue", args=["default"]))
    shown(admin_client, reverse("switchyard-operations"))
    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-jobs") + "?state=scheduled")


class BackOffice(AdminSite):
    """A site that lists a line without a page, as linkding's does."""

    def get_app_list(self, request: Any, app_label: str | None = None) -> list[Any]:
        """Return the apps and a line of its own."""
        return [*super().get_app_list(request, app_label), {"name": "Tasks", "app_label": "tasks", "models": []}]


site = BackOffice(name="backoffice")
namesake, bare = BackOffice(), BackOffice()  # "admin", as Django's own
bare.register(Group)
for each in (site, namesake):
    each.register(Group)
    each.register(list(LISTS), RoomEntry)
    each.register(Token, TokenAdmin)


Named, Namesake, Bare = (
    type("Urls", (), {"urlpatterns": [path("", include("switchyard.urls")), path(f"{at}/", of.urls)]})
    for at, of in (("backoffice", site), ("admin", namesake), ("admin", bare))
)


@pytest.mark.parametrize(("urls", "name"), [(Named, "site"), (Namesake, "namesake")])
def test_the_room_is_on_the_site_that_the_setting_names(urls, name, admin_client, settings):
    settings.ROOT_URLCONF = urls
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=f"{__name__}.{name}")

    room = admin_client.get("/admin/operations/")
    tokens = admin_client.get(reverse("admin:switchyard_api_token_changelist", current_app=admin_site().name))
    login = Client().get("/admin/operations/").headers["Location"]

    menu = html.unescape(room.content.decode())
    assert f'href="{reverse("admin:app_list", args=["auth"], current_app=admin_site().name)}"' in menu
    assert f'action="{reverse("admin:logout", current_app=admin_site().name)}"' in menu
    assert (room.status_code, tokens.status_code) == (200, 200)
    assert login.startswith(reverse("admin:login", current_app=admin_site().name))
    assert not list(addresses())


def test_who_lacks_the_second_factor_of_the_site_sees_and_does_nothing(admin_client, settings, monkeypatch, facilities):
    settings.ROOT_URLCONF = Named
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=f"{__name__}.site")
    monkeypatch.setattr(site, "has_permission", lambda request: False)
    request = RequestFactory().get("/")
    request.user = User.objects.get()

    answers = [
        admin_client.get("/admin/operations/"),
        admin_client.post("/admin/operations/queues/default/pause/", {"reason": "x"}),
        admin_client.get("/admin/switchyard_jobs/job/m-1/events/"),
    ]

    assert [answer.status_code for answer in answers] == [302, 302, 302]
    assert facilities.transport.stats("default").pause is None
    assert room_frame({"request": request})["groups"] == []


@pytest.mark.parametrize(("urls", "name"), [(Named, "site"), (Bare, "bare")])
def test_without_the_setting_a_check_names_the_site_and_no_page_fails(urls, name, admin_client, settings):
    settings.ROOT_URLCONF = urls

    (found,) = addresses()
    pages = {address: admin_client.get(address).status_code for address in ("/admin/operations/", "/api/v1/docs")}

    assert (pages, found.id) == (dict.fromkeys(pages, 200), "switchyard.E030")
    assert f'"ADMIN_SITE": "{__name__}.{name}"' in str(found.hint)


@pytest.mark.parametrize(
    ("path", "fact"), [("tests.nowhere.site", "No module named"), (f"{__name__}.BackOffice", "is a type, no AdminSite")]
)
def test_a_setting_that_names_no_site_is_refused(path, fact, settings):
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=path)

    with pytest.raises(InvalidSetting, match=rf'^SWITCHYARD\["ADMIN_SITE"\]:? .*{fact}'):
        admin_site()


# A button, a choice or a link that is marked as one that needs the broker, up to the end of its tag.
MARKED = re.compile(r"<(?:a|button|option)\b[^>]*\bdata-broker\b[^>]*>")
OFF = html.escape(SWITCHED_OFF)


@pytest.fixture
def sweep(facilities, transactional_db):
    """A schedule of this project's own broker."""
    dramatiq.actor(lambda: None, actor_name="sweep", queue_name="billing", periodic=cron("15 2 * * *"))
    return "sweep"


@pytest.fixture
def letter(sweep):
    project(a_letter(id="m-1", actor="sweep", fingerprint="f00d"))
    return DeadLetter.objects.get()


@pytest.fixture
def away(facilities):
    """The broker does not answer, and this process has not read it before."""
    overview.FACTS.forget()
    STRIP.forget()
    with broker_without_server():
        for actor in dramatiq.get_broker().actors.values():
            if actor.actor_name == "sweep":  # it sends to the broker that declared it
                actor.broker = dramatiq.get_broker()
        yield
    overview.FACTS.forget()
    STRIP.forget()


def is_off(tag: str) -> bool:
    """Return whether a tag does nothing and says why."""
    is_dead = " disabled" in tag if not tag.startswith("<a") else 'aria-disabled="true"' in tag and "href" not in tag
    return is_dead and f'title="{OFF}"' in tag


def pages(letter: DeadLetter) -> dict[str, tuple[str, int]]:
    """Return the pages with acts on the broker, each with the number of these acts at least."""
    row = {"args": [letter.pk]}
    return {
        "queues": (reverse("switchyard-queues"), 4),
        "a queue": (reverse("switchyard-queue", args=["default"]), 3),
        "a queue, alone": (reverse("switchyard-queue-live", args=["default"]), 3),
        "pause": (reverse("switchyard-queue-pause", args=["default"]), 1),
        "resume": (reverse("switchyard-queue-resume", args=["default"]), 1),
        "purge": (reverse("switchyard-queue-purge", args=["default"]), 1),
        "relocate": (reverse("switchyard-queue-relocate", args=["default"]), 1),
        "workers": (reverse("switchyard-operations-workers"), 3),
        "schedules": (reverse("switchyard-schedules"), 1),
        "a schedule": (reverse("switchyard-schedule", args=["sweep"]), 1),
        "an actor": (reverse("switchyard-actor", args=["sweep"]), 1),
        "letters": (f"{reverse('switchyard-letters')}?queue=default", 2),
        "a group": (f"{reverse('switchyard-letters')}?fingerprint=f00d", 4),
        "a letter": (reverse("switchyard-letter", **row), 3),
        "discard": (reverse("switchyard-letter-act", args=[letter.pk, "discard"]), 1),
        "jobs": ("/admin/switchyard_jobs/job/?state=succeeded", 2),
    }


def test_acts_are_switched_off_with_the_reason_on_every_page_and_what_needs_no_broker_stays(admin_client, letter, away):
    job_row()

    for name, (address, least) in pages(letter).items():
        page = admin_client.get(address).content.decode()
        found = MARKED.findall(page)
        assert len(found) >= least, (name, found)
        assert [tag for tag in found if not is_off(tag)] == [], name
        assert re.search(rf">{re.escape(OFF)}</", page), f"{name} does not show the reason"
    schedule = admin_client.get(reverse("switchyard-schedule", args=["sweep"])).content.decode()
    shown = admin_client.get(reverse("switchyard-letter", args=[letter.pk])).content.decode()
    assert re.search(r'<button class="sy-button">Pause sweep</button>', schedule)
    assert re.search(r'<button class="sy-button">Acknowledge letter</button>', shown)


def test_nothing_is_switched_off_while_the_broker_answers(admin_client, letter, facilities):
    STRIP.forget()
    job_row()

    for name, (address, _) in pages(letter).items():
        page = admin_client.get(address).content.decode()
        assert OFF not in page and not any(map(is_off, MARKED.findall(page))), name


def posts(letter: DeadLetter) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the acts on the broker with the fields of their forms."""
    reason = {"reason": "why"}
    return {
        "pause": (reverse("switchyard-queue-pause", args=["default"]), reason),
        "resume": (reverse("switchyard-queue-resume", args=["default"]), reason),
        "purge": (reverse("switchyard-queue-purge", args=["default"]), {"shown": "3", **reason}),
        "undo": (reverse("switchyard-queue-undo", args=["default", "1"]), {}),
        "relocate": (
            reverse("switchyard-queue-relocate", args=["default"]), {"actor": "sweep", "to": "slow", **reason},
        ),
        "quiet a pool": (reverse("switchyard-operations-instruct", args=["quiet"]), {"pool": "slow", **reason}),
        "stacks": (reverse("switchyard-operations-ask-for-stacks", args=["slow:h:1"]), {}),
        "run a schedule": (reverse("switchyard-schedule-run", args=["sweep"]), {}),
        "send": (
            reverse("switchyard-actor-send", args=["sweep"]), {"job_id": "0d0f8a3a-5f0e-4d43-9c5a-1f6a1d1b0f7c"},
        ),
        "requeue": (reverse("switchyard-letter-act", args=[letter.pk, "requeue"]), {}),
        "discard": (reverse("switchyard-letter-act", args=[letter.pk, "discard"]), reason),
        "edit": (reverse("switchyard-letter-edit", args=[letter.pk]), {"arguments": "{}"}),
        "cancel": ("/admin/switchyard_jobs/job/m-1/cancel/", reason),
        "run now": ("/admin/switchyard_jobs/job/m-1/run-now/", {}),
        "cancel chosen": ("/admin/operations/bulk/begin/job.cancel_chosen/?job=m-1", {"count": "1", **reason}),
    }  # fmt: skip


def test_a_post_answers_503_in_words(admin_client, letter, away):
    for name, (address, fields) in posts(letter).items():
        answer = admin_client.post(address, fields)
        page = answer.content.decode()
        assert answer.status_code == 503, (name, answer.status_code, answer.headers.get("Location"))
        assert re.search(r"broker (did|does) not answer|while the broker is unavailable", page, re.IGNORECASE), name
        assert 'id="content-start"' in page and "Traceback (most" not in page, name
    letter.refresh_from_db()
    assert letter.state == "new"
