"""The job of :mod:`tests.chaos.load`, in a process of its own; ``CHAOS_LEDGER`` names its ledger."""

from __future__ import annotations

import os

import dramatiq
from django.conf import settings

from tests.chaos.ledger import Ledger
from tests.chaos.load import declare_job

LEDGER = Ledger(os.environ["CHAOS_LEDGER"])

for queue in settings.YARD.queues:
    declare_job(dramatiq.get_broker(), LEDGER, queue.name)
