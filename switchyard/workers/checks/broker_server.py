"""Mistakes in the broker's server, as system checks; :mod:`switchyard.broker.health.server` finds them."""

from __future__ import annotations

from django.core.checks import CheckMessage, Error, Warning

from switchyard.addon import addons
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.health.server import ServerFinding, away
from switchyard.broker.health.servers import servers_of
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.conf import switchyard_settings

IDS = {
    "evicting": "switchyard.E015",
    "nothing_kept": "switchyard.E016",
    "replica": "switchyard.E017",
    "too_old": "switchyard.E017",
    "disk": "switchyard.E017",
    "away": "switchyard.W001",
    "unverified": "switchyard.W001",
    "snapshots_only": "switchyard.W003",
    "nearly_full": "switchyard.W004",
    "loading": "switchyard.W001",
}


def unsafe_server(url: str, *, debug: bool) -> list[CheckMessage]:
    """Check whether the server may lose work, within about 2 s, also when it does not answer.

    Args:
        url: Address of the broker. Never shown: it may hold a password.
        debug: A server of a development machine may do without persistence.
    """
    calls = calls_on(connect(url, profile="quick", absence=switchyard_settings().absence), budget_s=1.0)
    try:
        servers = servers_of(calls, Keys())
        found = servers.findings(servers.read(production=not debug))
    except BrokerUnavailable as error:
        found = [away(error)]
    finally:
        calls.close()
    return [_message(finding) for finding in found]


def _message(finding: ServerFinding) -> CheckMessage:
    kind = Error if finding.severity == "error" and not finding.partial else Warning
    words = (addon.load("words") for addon in addons())
    ids = IDS | {code: each.check for of_addon in words if of_addon for code, each in of_addon.items()}
    return kind(finding.seen, hint=finding.remedy, obj="broker", id=ids[finding.code])
