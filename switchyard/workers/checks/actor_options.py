"""Options of actors that have no effect as they are declared."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning
from dramatiq.broker import Broker

from switchyard.workers.checks.actors import subject_of


def options_without_effect(broker: Broker) -> list[CheckMessage]:
    """W023: ``result_ttl`` without stored results, ``catch_up`` without a schedule, ``search`` for what is redacted."""
    found: list[CheckMessage] = []
    for actor in broker.actors.values():
        options, slips = actor.options, list[tuple[str, str]]()
        if "result_ttl" in options and not options.get("store_results"):
            fact = "its result_ttl has no effect, because its results are not stored"
            slips.append((fact, "Add store_results=True, or leave result_ttl out."))
        if options.get("catch_up") is not None and options.get("periodic") is None:
            slips.append(
                (
                    "its catch_up has no effect, because it is not periodic",
                    "Add periodic=cron('0 2 * * *'), or leave catch_up out.",
                )
            )
        redacted = options.get("redact") or ()
        if hidden := [name for name in options.get("search") or () if name in redacted]:
            fact = f"no job is found by {', '.join(hidden)}, because redacted arguments are not kept"
            slips.append((fact, "Leave it out of search, or out of redact."))
        found += [Warning(fact, hint=hint, obj=subject_of(actor), id="switchyard.W023") for fact, hint in slips]
    return found
