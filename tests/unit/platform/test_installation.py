"""``apps()`` lists what a project adds, and checks name what it has not added."""

import re
import subprocess
import sys
from typing import Any

import pytest
from django.apps import apps as installed_apps
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.urls import include, path, re_path
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import GroupCallbacks, Retries, TimeLimit
from dramatiq.middleware.prometheus import Prometheus
from dramatiq.rate_limits.backends import StubBackend

import switchyard
from switchyard.dramatiq_app import DramatiqConfig
from switchyard.wiring import build_broker
from switchyard.workers.checks import installation
from switchyard.workers.checks.installation import addresses, foreign_broker, missing_apps
from tests.factories.brokers import the_global_broker

room = path("", include("switchyard.operations.urls"))
backend = path("admin/", admin.site.urls)
below = re_path("^yard/", include("switchyard.operations.urls"))
WithoutLibrary, Hidden, WithoutApi, BelowExpression = (
    type(name, (), {"urlpatterns": patterns})
    for name, patterns in (
        ("WithoutLibrary", [backend]),
        ("Hidden", [backend, room]),
        ("WithoutApi", [room, backend]),
        ("BelowExpression", [below, backend]),
    )
)


def test_apps_are_all_that_a_project_adds_without_those_that_it_has_and_labels_begin_with_switchyard():
    added = switchyard.apps(["django_dramatiq", "switchyard.jobs"])

    assert switchyard.apps()[:2] == ["switchyard.commands", "switchyard.dramatiq_app.DramatiqConfig"]
    assert set(switchyard.apps()) <= set(settings.INSTALLED_APPS)
    assert not {"switchyard.jobs", f"switchyard.{switchyard.BROKER_APP}"} & set(added)
    assert "switchyard.api" in added

    own = [config.label for config in installed_apps.get_app_configs() if config.name.startswith("switchyard.")]

    assert len(own) > 10
    assert [label for label in own if not label.startswith("switchyard_")] == []


def test_a_process_without_the_api_loads_none_of_its_packages():
    program = "import django, sys; django.setup(); print({'ninja', 'pydantic'} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)

    assert ran.stdout == "set()\n"


def test_a_missing_app_is_named(monkeypatch):
    assert [*missing_apps(), *foreign_broker(), *addresses()] == []
    monkeypatch.setattr(installation, "APPS", (*switchyard.APPS, "elsewhere"))

    (found,) = missing_apps()

    assert (found.id, found.msg) == ("switchyard.E030", "lacks switchyard.elsewhere")
    assert "INSTALLED_APPS +=" in str(found.hint)


def test_another_broker_is_named():
    with the_global_broker(StubBroker()):
        (found,) = foreign_broker()

    assert found.id == "switchyard.E030"
    assert "a StubBroker" in found.msg


def test_a_project_need_not_name_the_broker():
    assert DramatiqConfig.broker_settings()["BROKER"] == "switchyard.wiring.build_broker"

    with override_settings(DRAMATIQ_BROKER={"BROKER": "mysite.broker.build"}):
        assert DramatiqConfig.broker_settings() == {"BROKER": "mysite.broker.build"}
    with override_settings(DRAMATIQ_BROKER={"MIDDLEWARE": ["mysite.stamp"]}):
        assert DramatiqConfig.broker_settings()["BROKER"] == "switchyard.wiring.build_broker"


@pytest.mark.parametrize("app", ["django_dramatiq", "django_dramatiq.apps.DjangoDramatiqConfig"])
def test_an_app_of_dramatiq_beside_ours_is_named(app, monkeypatch):
    monkeypatch.setattr(settings, "INSTALLED_APPS", [app, *settings.INSTALLED_APPS])

    with pytest.raises(ImproperlyConfigured, match=f'^INSTALLED_APPS lists "{app}", which switchyard.apps'):
        DramatiqConfig.broker_settings()


@pytest.mark.parametrize(
    ("declared", "fact"),
    [
        ({"BROKER": "dramatiq.brokers.redis.RedisBroker", "OPTIONS": {"url": "x"}}, "names dramatiq.brokers.redis.Red"),
        ({"BROKER": "dramatiq.brokers.rabbitmq.RabbitmqBroker"}, "names dramatiq.brokers.rabbitmq.RabbitmqBroker"),
        ("switchyard.wiring.build_broker", "is a str, not a dict"),
    ],
)
def test_a_broker_from_which_no_pool_fetches_is_refused(declared, fact):
    with (
        override_settings(DRAMATIQ_BROKER=declared),
        pytest.raises(ImproperlyConfigured, match=f'^DRAMATIQ_BROKER {fact}.*remove it, or set it to {{"BROKER": "sw'),
    ):
        DramatiqConfig.broker_settings()


class Elsewhere:
    """A router that writes everything but users to another database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return None if model._meta.app_label == "auth" else "other"


class Replica:
    """A router that reads everything from another database."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"


@pytest.mark.parametrize("router", [Elsewhere(), Replica()])
def test_a_router_that_moves_our_tables_is_named_with_some_of_them(router):
    assert not list(installation.routed_models())

    with override_settings(DATABASE_ROUTERS=[router]):
        (found,) = installation.routed_models()

    assert (found.id, found.obj) == ("switchyard.E030", "DATABASE_ROUTERS")
    if isinstance(router, Replica):
        assert "and read there what they wrote" in str(found.hint)
    else:
        assert re.match(r"sends switchyard_.* and others to another database than 'default'$", found.msg)


@pytest.mark.parametrize(
    ("urls", "ids"),
    [(WithoutLibrary, ["switchyard.W030"]), (Hidden, ["switchyard.E030"]), (WithoutApi, []), (BelowExpression, [])],
)
def test_missing_or_hidden_addresses_are_named(urls, ids):
    with override_settings(ROOT_URLCONF=urls):
        assert [message.id for message in addresses()] == ids


def test_a_missing_middleware_is_named_where_there_is_an_api():
    rest = [name for name in settings.MIDDLEWARE if not name.endswith("problem_documents")]

    with override_settings(MIDDLEWARE=rest):
        (found,) = addresses()
        assert found.id == "switchyard.W030"
        assert str(found.hint) == 'Add "switchyard.api.middleware.problem_documents" near its beginning.'
        with override_settings(ROOT_URLCONF=WithoutApi):
            assert not list(addresses())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("switchyard.api.middleware", "problem_documents"),
        ("switchyard.jobs.request_origin", "request_origin"),
        ("switchyard.frame.silent_database", "SilentDatabase"),
    ],
)
def test_a_module_in_place_of_its_middleware_is_named_with_the_right_path(module, name):
    assert not list(installation.misnamed_middleware())

    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware", module]):
        (found,) = installation.misnamed_middleware()

    assert (found.id, found.obj, found.hint) == ("switchyard.E030", "MIDDLEWARE", f'Write "{module}.{name}".')


def test_middleware_of_dramatiq_is_left_out_where_ours_does_its_work(settings):
    class Own(Retries):
        """Of the project: it stays."""

    listed = [Retries(max_retries=1), TimeLimit(), Prometheus(), GroupCallbacks(StubBackend()), own := Own()]
    settings.DRAMATIQ_BROKER = {
        "BROKER": "switchyard.wiring.build_broker",
        "MIDDLEWARE": ["dramatiq.middleware.Retries", TimeLimit(), "django_dramatiq.middleware.AdminMiddleware"],
    }

    broker = build_broker(listed)
    (found,) = installation.replaced_middleware()

    kinds = [type(entry) for entry in broker.middleware]
    assert own in broker.middleware and GroupCallbacks in kinds
    assert not {Retries, TimeLimit, Prometheus} & set(kinds)
    assert (found.id, found.obj) == ("switchyard.W030", "DRAMATIQ_BROKER")
    assert found.msg.startswith("lists Retries, TimeLimit, left out: ")
