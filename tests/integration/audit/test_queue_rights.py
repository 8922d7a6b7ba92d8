"""Rights of a group on some queues alone, on every page and act; the two ready roles, made by ``migrate``."""

import html
import json
import re
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from switchyard.api.tokens import create_token
from switchyard.audit.models import AuditEntry, GrantedRight, GroupQueues
from switchyard.audit.services import OPERATOR, READ_ONLY, ROLES, Who, make_roles
from switchyard.bulk import services as bulk
from switchyard.bulk.models import BulkAct
from switchyard.console.queue_rights import holds, queue_rights
from switchyard.dead_letters import acts
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.jobs import pauses
from switchyard.jobs.services import submit
from tests.factories.letters import keep, letter
from tests.factories.staff import client_of, log_in

pytestmark = pytest.mark.django_db(transaction=True)
PAUSE = "switchyard_operations.pause_queue"


@pytest.fixture
def group(transactional_db):
    """Operators of ``slow`` alone."""
    made = Group.objects.create(name="reports team")
    made.permissions.set(Group.objects.get(name=OPERATOR).permissions.all())
    GroupQueues.objects.create(group=made, queues=["slow"])
    return made


@pytest.fixture
def user(group):
    made = User.objects.create_user("ada", is_staff=True)
    made.groups.add(group)
    return made


@pytest.fixture
def page(user):
    return client_of(user)


@pytest.fixture
def sent(facilities):
    """Send a job to a queue."""
    made = []
    for queue in ("slow", "default"):

        @dramatiq.actor(actor_name=f"of_{queue}", queue_name=queue)
        def waits(customer: int) -> None:
            raise AssertionError("nothing runs here")

        made.append(waits)
    actors = {actor.queue_name: actor for actor in made}
    return lambda queue: submit(actors[queue], customer=4711)


def who(user: User) -> Who:
    fresh = User.objects.get(pk=user.pk)
    return Who(fresh.username, "page", only=queue_rights(fresh))


def test_right_holds_on_the_queues_of_its_group_alone(user):
    assert holds(user, PAUSE, "slow") and holds(user, PAUSE)
    assert not holds(user, PAUSE, "default") and not holds(user, PAUSE, "")
    assert not holds(user, "switchyard_jobs.view_arguments"), "arguments of every queue"
    assert holds(user, "switchyard_jobs.view_job", "default"), "a right that is of no queue"


def test_right_from_elsewhere_holds_on_all_queues(user, group):
    user.user_permissions.add(Permission.objects.get(codename="purge_queue"))
    other = Group.objects.create(name="on call")
    other.permissions.set(Permission.objects.filter(codename="cancel_job"))
    third = Group.objects.create(name="mail team")
    third.permissions.set(Permission.objects.filter(codename="pause_queue"))
    GroupQueues.objects.create(group=third, queues=["bulk", "gone"])
    user.groups.add(other, third)

    found = queue_rights(User.objects.get(pk=user.pk))

    assert "switchyard_operations.purge_queue" not in found and "switchyard_jobs.cancel_job" not in found
    assert found[PAUSE] == {"slow", "bulk", "gone"}
    assert found["switchyard_jobs.run_job"] == {"slow"}
    assert not queue_rights(User.objects.create_superuser("root"))


def test_queue_is_paused_and_purged_where_the_right_holds(page, facilities, sent):
    for queue in ("slow", "default"):
        sent(queue)
    for verb in ("pause", "purge"):
        answers = [
            page.post(reverse(f"switchyard-queue-{verb}", args=[queue]), {"reason": "slow", "shown": "1"})
            for queue in ("slow", "default")
        ]

        assert [answer.status_code for answer in answers] == [302, 403]
        assert b"for default" in answers[1].content

    assert AuditEntry.objects.filter(act="queue.purge").values_list("target", flat=True).get() == "slow"


@pytest.mark.parametrize(("queue", "offered"), [("slow", True), ("default", False)])
def test_pages_offer_what_is_allowed_and_no_more(page, sent, queue, offered):
    job_id = sent(queue)
    at_queue = page.get(reverse("switchyard-queue", args=[queue])).content.decode()
    at_job = page.get(reverse("switchyard-job", args=[job_id])).content.decode()
    at_actor = page.get(reverse("switchyard-actor", args=[f"of_{queue}"])).content.decode()
    listed = page.get(reverse("switchyard-jobs"), {"queue": queue}).content.decode()

    for verb in ("pause", "purge"):
        assert (reverse(f"switchyard-queue-{verb}", args=[queue]) in at_queue) is offered
    for verb in ("cancel", "again"):
        assert (reverse(f"switchyard-job-{verb}", args=[job_id]) in at_job) is offered
    assert (reverse("switchyard-actor-pause", args=[f"of_{queue}"]) in at_actor) is offered
    assert (reverse("switchyard-bulk-begin", args=["job.cancel_chosen"]) in listed) is offered
    for text in (at_queue, at_job, listed):
        assert ("4711" in text) is offered, "the arguments"


def test_lists_of_all_queues_offer_acts_on_the_rows_of_own_queues_alone(page, sent):
    foreign = sent("default")
    alone = page.get(reverse("switchyard-jobs")).content.decode()
    own = sent("slow")
    both = page.get(reverse("switchyard-jobs")).content.decode()

    assert "4711" not in alone and reverse("switchyard-bulk-begin", args=["job.cancel_chosen"]) not in alone
    assert both.count("4711") == 1 and reverse("switchyard-bulk-begin", args=["job.cancel_chosen"]) in both
    assert (f'value="{own}"' in both, f'value="{foreign}"' in both) == (True, False)
    assert set(re.findall(r"/queues/(\w+)/pause/", page.get(reverse("switchyard-queues")).content.decode())) == {"slow"}
    assert page.get(reverse("switchyard-jobs"), {"argument": "customer=4711"}).status_code == 403


def test_job_is_cancelled_where_the_right_holds(page, sent):
    ids = {queue: sent(queue) for queue in ("slow", "default")}
    chosen = reverse("switchyard-bulk-begin", args=["job.cancel_chosen"])

    both = f"{chosen}?job={','.join(ids.values())}"
    assert page.post(both, {"count": "2", "reason": "x", "form_id": "1"}).status_code == 403
    answers = [page.post(reverse("switchyard-job-cancel", args=[id_])).status_code for id_ in ids.values()]

    assert answers == [302, 403]
    assert [entry.target for entry in AuditEntry.objects.filter(act="job.cancel")] == [ids["slow"]]


def test_token_has_the_rights_of_its_owner_on_queues(user, sent):
    user.user_permissions.add(Permission.objects.get(codename="submit_work"))
    _, plain = create_token(owner=user, scopes=["operate", "submit"], name="test")
    api = Client(headers={"Authorization": f"Bearer {plain}"})
    ids = {queue: sent(queue) for queue in ("slow", "default")}
    shown = {queue: api.get(f"/api/v1/jobs/{id_}").json() for queue, id_ in ids.items()}
    answers = {queue: api.delete(f"/api/v1/jobs/{id_}") for queue, id_ in ids.items()}

    assert {queue: answer.status_code for queue, answer in answers.items()} == {"slow": 202, "default": 403}
    assert "for default" in answers["default"].json()["detail"]
    assert "4711" in json.dumps(shown["slow"]) and "4711" not in json.dumps(shown["default"])


def test_own_job_is_cancelled_on_any_queue(user, sent):
    user.user_permissions.add(Permission.objects.get(codename="submit_work"))
    token, plain = create_token(owner=user, scopes=["submit"], name="test")
    sent("default")
    own = submit(dramatiq.get_broker().get_actor("of_default"), owner=token.owner_key, customer=1)

    assert Client(headers={"Authorization": f"Bearer {plain}"}).delete(f"/api/v1/jobs/{own}").status_code == 202


def test_actor_is_paused_on_its_own_queue(user, sent):
    actors: dict[str, Any] = dramatiq.get_broker().actors

    assert pauses.pause(pauses.chosen(actors["of_slow"]), who=who(user), reason="late")
    with pytest.raises(PermissionDenied, match="for default"):
        pauses.pause(pauses.chosen(actors["of_default"]), who=who(user), reason="late")
    assert [each.named for each in pauses.paused_actors()] == ["of_slow"]


def test_letters_are_moved_where_the_right_holds(page, user, facilities):
    for queue in ("slow", "default"):
        project(keep(letter(id=f"of-{queue}", queue=queue)))
    rows = {row.queue: row for row in DeadLetter.objects.all()}
    shown = {
        queue: page.get(reverse("switchyard-letter", args=[row.pk])).content.decode() for queue, row in rows.items()
    }
    addresses = {queue: reverse("switchyard-letter-act", args=[row.pk, "requeue"]) for queue, row in rows.items()}

    assert addresses["slow"] in shown["slow"] and addresses["default"] not in shown["default"]
    assert page.post(addresses["default"]).status_code == 403
    with pytest.raises(PermissionDenied):
        acts.apply("acknowledge", list(rows.values()), who=who(user))
    assert page.post(addresses["slow"]).status_code == 302
    assert {row.queue: row.state for row in DeadLetter.objects.all()} == {"slow": "requeued", "default": "new"}


def test_lists_of_letters_of_several_queues_offer_acts_on_those_of_own_queues_alone(page, user, facilities):
    for queue in ("slow", "default", "webhook"):
        for number in range(2):
            made = letter(id=f"{queue}-{number}", queue=queue, actor="fail_always" if queue != "webhook" else "deliver")
            project(keep(made))
    rows, address = {row.message_id: row for row in DeadLetter.objects.all()}, reverse("switchyard-letters")
    [fingerprint] = {row.fingerprint for row in rows.values() if row.queue == "slow"}
    shown = page.get(address, {"actor": "fail_always"}).content.decode()
    group = page.get(address, {"fingerprint": fingerprint}).content.decode()
    foreign = page.get(address, {"actor": "deliver"}).content.decode()
    of_group = [html.unescape(to) for to in re.findall(r'href="([^"]*/letter\.[^"]*)"', group)]
    asked = page.get(of_group[0]).content.decode()

    for text in (shown, group):
        assert [f'value="{row.pk}"' in text for row in rows.values()] == [row.queue == "slow" for row in rows.values()]
        assert "chosen…" in text and "Requeue chosen…" not in foreign
    begin = html.unescape(re.findall(r'href="([^"]*letter\.discard[^"]*)">Discard all 2…', shown)[0])
    assert begin.endswith("actor=fail_always&queue=slow") and "Discard all" not in foreign
    assert "Requeue 2 dead letters?" in asked and "Requeue 2…" in group and "Acknowledge 2…" in group
    assert {re.findall(r"letter\.(\w+)", to)[0] for to in of_group} == {"requeue", "canary", "acknowledge", "discard"}
    assert [to for to in of_group if not to.endswith(f"?fingerprint={fingerprint}&queue=slow")] == []
    assert page.post(begin, {"reason": "old", "form_id": "f"}).status_code == 302

    act = BulkAct.objects.get()
    assert (act.kind, act.total, act.filter["queue"]) == ("letter.discard", 2, "slow")
    assert list(AuditEntry.objects.order_by("id").values_list("act", flat=True)) == ["bulk.start", "letter.discard"]
    bulk.start("letter.requeue", {"queue": "slow,default"}, who=Who("root", "page"))
    assert BulkAct.objects.latest("pk").total == 4


def test_discarded_group_of_several_queues_is_restored_on_own_queues_alone(page, user, facilities):
    for queue in ("slow", "default"):
        project(keep(letter(id=f"of-{queue}", queue=queue)))
    acts.apply("discard", list(DeadLetter.objects.all()), who=Who("root", "page"), reason="old")
    shown = page.get(reverse("switchyard-letters"), {"state": "discarded"}).content.decode()
    [begin] = {html.unescape(to) for to in re.findall(r'href="([^"]*letter\.restore[^"]*)">Restore those of', shown)}

    assert page.post(begin, {"count": "1", "form_id": "f"}).status_code == 302
    assert (BulkAct.objects.get().total, BulkAct.objects.get().filter["queue"]) == (1, "slow")


def test_bulk_act_is_refused_as_a_whole_unless_all_that_match_are_on_such_queues(user, facilities, sent):
    for queue in ("slow", "default"):
        project(keep(letter(id=f"of-{queue}", queue=queue)))
    [fingerprint] = set(DeadLetter.objects.values_list("fingerprint", flat=True))
    refused: list[tuple[str, dict[str, str]]] = [
        ("letter.requeue", {"fingerprint": fingerprint}),
        ("job.cancel", {"actor": "of_slow"}),
        ("job.cancel", {"queue": "default"}),
        ("job.run_again", {"state": "dead"}),
    ]

    for kind, filter in refused:
        with pytest.raises(PermissionDenied):
            bulk.start(kind, filter, who=who(user))
    assert not BulkAct.objects.exists() and not AuditEntry.objects.exists()
    bulk.start("letter.requeue", {"fingerprint": fingerprint, "queue": "slow"}, who=who(user))
    bulk.start("job.cancel", {"queue": "slow"}, who=who(user))

    assert BulkAct.objects.count() == 2


def test_admin_gives_queues_to_a_group_and_keeps_those_that_are_not_declared(group):
    client = log_in()
    row = GroupQueues.objects.get()
    row.queues = ["slow", "gone"]
    row.save()
    address = reverse("admin:switchyard_audit_groupqueues_change", args=[row.pk])

    shown = client.get(address).content.decode()
    client.post(address, {"group": group.pk, "queues": ["default", "gone"]})

    assert "gone, not declared" in shown
    row.refresh_from_db()
    assert row.queues == ["default", "gone"]


def rights_of(role: str) -> set[str]:
    rows = Group.objects.get(name=role).permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{name}" for app, name in rows}


@pytest.mark.parametrize("role", [READ_ONLY, OPERATOR])
def test_migrated_database_has_each_role_with_its_rights(role):
    assert rights_of(role) == set(ROLES[role])


def test_read_only_has_view_rights_alone():
    assert {right.partition(".")[2].partition("_")[0] for right in rights_of(READ_ONLY)} == {"view"}
    assert "switchyard_jobs.view_arguments" not in rights_of(READ_ONLY)


def test_next_migration_changes_nothing_that_people_changed():
    Group.objects.get(name=OPERATOR).permissions.remove(Permission.objects.get(codename="discard_deadletter"))
    Group.objects.get(name=READ_ONLY).delete()

    call_command("migrate", verbosity=0)

    assert rights_of(OPERATOR) == set(ROLES[OPERATOR]) - {"switchyard_dead_letters.discard_deadletter"}
    assert not Group.objects.filter(name=READ_ONLY).exists()


def test_right_of_a_later_release_is_given_once(monkeypatch):
    monkeypatch.setitem(ROLES, READ_ONLY, (*ROLES[READ_ONLY], "switchyard_operations.dump_stacks"))

    for _ in range(2):
        make_roles()

    assert "switchyard_operations.dump_stacks" in rights_of(READ_ONLY)
    assert GrantedRight.objects.filter(right="switchyard_operations.dump_stacks", role=READ_ONLY).count() == 1


def test_right_that_no_app_has_is_left_out(monkeypatch):
    monkeypatch.setitem(ROLES, READ_ONLY, (*ROLES[READ_ONLY], "switchyard_operations.fly"))

    make_roles()

    assert "switchyard_operations.fly" not in rights_of(READ_ONLY)
