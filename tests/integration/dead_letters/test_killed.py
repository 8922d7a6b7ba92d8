"""A process that triages is killed again and again; then rows and lists agree, and nothing is lost."""

import random
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.dead_letters import acts, queries
from switchyard.dead_letters.models import DeadLetter
from tests.waiting import wait_for

LETTERS = 120
KILLS = 2


@pytest.mark.django_db(transaction=True)
def test_triage_killed_at_any_moment_loses_nothing(bury, facilities, process_environment):
    ids = [bury().id for _ in range(LETTERS)]
    acts.reconcile_all()
    chance = random.Random(7)

    for _ in range(KILLS):
        before = facilities.transport.stats("default").dead
        command = [sys.executable, "manage.py", "deadletters", "requeue", "--group", "f00dfacef00dface"]
        triage = subprocess.Popen(command, cwd=settings.BASE_DIR, env=process_environment, stdout=subprocess.DEVNULL)
        moved = chance.randint(1, 25)
        wait_for(lambda: facilities.transport.stats("default").dead <= before - moved)  # noqa: B023
        triage.kill()
        triage.wait(30)

    DeadLetter.objects.exclude(claim_token="").update(claim_at=timezone.now() - timedelta(minutes=5))
    acts.reconcile_all()

    listed = {letter.id for letter in facilities.transport.dead_letters("default", limit=LETTERS).items}
    states = dict(DeadLetter.objects.values_list("message_id", "state"))
    assert {message_id for message_id, state in states.items() if state == "new"} == listed
    assert {message_id for message_id, state in states.items() if state == "requeued"} == set(ids) - listed
    assert not DeadLetter.objects.exclude(claim_token="").exists()
    waiting = facilities.transport.stats("default").live.waiting
    assert LETTERS - len(listed) <= waiting <= LETTERS - len(listed) + KILLS, "at most one copy too many a kill"
    left = list(queries.listing(fingerprint="f00dfacef00dface"))
    assert acts.apply("requeue", left, who=Who("a.lind", "page")).skipped == ()
