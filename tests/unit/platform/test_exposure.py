"""``check --deploy`` refuses what is unsafe once others can reach the yard, and shows no secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import registry

from switchyard.workers.checks.installation import unsafe_exposure

SAFE_KEY = "kq3v9x1m7c5b2n8z4l6j0h_wertyuiopasdfghjklQWERTZUIOP"
SAFE = {
    "public_url": "https://yard.example.com", "metrics_token": "",
    "broker_url": "rediss://user:password@93.184.216.34:6379/0", "place_url": "",
}  # fmt: skip


@pytest.fixture(autouse=True)
def safe(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = SAFE_KEY, []
    settings.ALLOWED_HOSTS = ["yard.example.com"]
    settings.SWITCHYARD = replace(django_settings.SWITCHYARD, **SAFE)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8")


def named() -> list[str]:
    found = unsafe_exposure()
    assert {message.id for message in found} <= {"switchyard.E060"}
    assert not any("password" in f"{message.msg}{message.hint}" for message in found)
    return [str(message.obj) for message in found]


def test_a_safe_yard_passes_and_the_check_is_one_of_a_deploy() -> None:
    assert named() == []
    assert unsafe_exposure in registry.registry.deployment_checks


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"public_url": "http://yard.example.com"}, "SWITCHYARD_PUBLIC_URL"),
        ({"metrics_token": "password"}, "SWITCHYARD_METRICS_TOKEN"),
        ({"metrics_token": "a" * 40}, "SWITCHYARD_METRICS_TOKEN"),
        ({"broker_url": "redis://user:password@93.184.216.34:6379/0"}, "SWITCHYARD_BROKER_URL"),
        ({"broker_url": "redis+cluster://user:password@10.0.0.1:1,[2606:4700::1111]:2/0"}, "SWITCHYARD_BROKER_URL"),
        ({"public_url": "http://127.0.0.1:8000", "broker_url": "redis://user:password@10.0.0.1:6379/0"}, ""),
        ({"broker_url": "redis://user:password@valkey:6379/0"}, ""),
    ],
)
def test_an_unsafe_setting_is_named(changed: dict[str, str], name: str, settings: Any) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, **changed)

    assert named() == ([name] if name else [])


@pytest.mark.parametrize(
    ("key", "forwarders"),
    [("short", "*"), (f"django-insecure-{SAFE_KEY}", "127.0.0.1,*"), ("x" * 60, "10.0.0.1 *")],
)
def test_weak_keys_fallbacks_too_and_forwarders_that_are_everybody_are_refused(
    key: str, forwarders: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS, settings.ALLOWED_HOSTS = key, [key], ["*"]
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", forwarders)

    assert sorted(named()) == ["ALLOWED_HOSTS", "FORWARDED_ALLOW_IPS", "SECRET_KEY", "SECRET_KEY"]
