"""redelivered() names the actors whose repetition has other effects, and what they are."""

import itertools
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone

from switchyard.jobs.models import DoneOnce
from switchyard.jobs.once import once
from switchyard.jobs.services import enqueue_on_commit
from switchyard.testing import NotRepeatable, assert_enqueued, enqueued, redelivered

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker", "media")]


def actor(name: str, work: Any, **options: Any) -> Any:
    return dramatiq.actor(work, actor_name=name, queue_name="default", **options)


def add_group(name: str) -> None:
    Group.objects.create(name=f"{name}-{Group.objects.count()}")


def test_an_actor_that_can_be_repeated_passes():
    def work(name: str) -> str:
        with once() as first:
            if first:
                add_group(name)
        group, _ = Group.objects.update_or_create(name=name)
        if not default_storage.exists(name):
            default_storage.save(name, ContentFile(b"content"))
        DoneOnce.objects.update_or_create(key=name, defaults={"created_at": timezone.now()})
        return group.name

    good = actor("good", work)
    good.send("a")
    good.send("b")

    assert (redelivered(), enqueued()) == (["good"], [])
    assert Group.objects.filter(name__in=["a", "b"]).count() == 2


def test_the_one_that_cannot_is_named_and_no_other():
    actor("good", lambda: Group.objects.get_or_create(name="good")[0].pk).send()
    actor("planted", add_group).send("charge")
    actor("reads", lambda: Group.objects.count() < 0).send()

    with pytest.raises(NotRepeatable) as refused:
        redelivered()

    assert refused.value.actors == ["planted"]
    text = str(refused.value)
    assert text.startswith("not safe to repeat, 1 of 3 actors: planted\n  planted('charge') in 'default'\n")
    assert "run again after a crash at its end, it added to auth_group: 1 row" in text
    assert "delivered once more after that, it added to auth_group: 1 row" in text


def mails() -> None:
    send_mail("Hello", "text", None, ["ada@example.com"])


def files() -> None:
    default_storage.save("report.txt", ContentFile(b"again"))


def overwrites() -> None:
    name = default_storage.path("counter.txt")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(str(len(Path(name).read_text()) * "x" + "x") if Path(name).exists() else "")


def deletes() -> None:
    group = Group.objects.filter(pk__gt=100).first()
    if group is not None:
        group.delete()


def renames() -> None:
    for group in Group.objects.filter(name__startswith="one"):
        group.name += "!"
        group.save()


counter = itertools.count()


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (mails, "sent the mail 'Hello' to ada@example.com"),
        (files, "wrote the file report_"),
        (overwrites, "changed the file counter.txt"),
        (deletes, "deleted from auth_group: 1 row"),
        (renames, "changed auth_group 101: name from 'one!' to 'one!!'"),
        (lambda: next(counter), "returned 1, before 0"),
    ],
    ids=["mail", "file", "content", "deleted row", "changed row", "result"],
)
def test_each_kind_of_effect_is_compared(work, words):
    Group.objects.create(pk=101, name="one")
    Group.objects.create(pk=102, name="two")
    Group.objects.create(pk=103, name="three")
    actor("planted", work).send()

    with pytest.raises(NotRepeatable) as refused:
        redelivered()

    assert words in str(refused.value)


def test_a_message_that_is_sent_again_is_named_and_not_run_twice():
    runs: list[int] = []
    follows = actor("follows", runs.append)

    def sends() -> None:
        with transaction.atomic():
            enqueue_on_commit(follows, 7)

    actor("planted", sends).send()

    with pytest.raises(NotRepeatable, match=r"enqueued follows\(7\)") as refused:
        redelivered()

    assert (refused.value.actors, runs) == (["planted"], [7, 7, 7])
    assert_enqueued(follows, args=(7,))


def test_an_actor_that_fails_only_when_repeated_is_named():
    actor("planted", lambda: Group.objects.create(name="unique")).send()

    with pytest.raises(NotRepeatable, match="raised IntegrityError"):
        redelivered()

    assert Group.objects.filter(name="unique").count() == 1


def test_columns_and_keys_of_results_are_left_out_on_request():
    Group.objects.create(name="one")

    def work() -> dict[str, Any]:
        renames()
        return {"count": 1, "unchanged": Group.objects.filter(name="one!!").exists()}

    actor("first", work).send()
    assert redelivered(ignore=["auth_group.name", "result.unchanged"]) == ["first"]

    Group.objects.filter(name__startswith="one").update(name="one")
    actor("second", work).send()
    with pytest.raises(NotRepeatable, match="returned unchanged=True, before unchanged=False"):
        redelivered(ignore=["name"])


def test_what_the_first_run_raises_is_raised():
    actor("broken", lambda: 1 // 0).send()

    with pytest.raises(ZeroDivisionError):
        redelivered()
