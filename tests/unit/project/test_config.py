"""The environment is checked at start; settings, ``DATABASES``, patience of retries and headers that follow from it."""

import os
import pprint
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, RequestFactory, override_settings

from apps.webhooks.services import ATTEMPTS_KEPT
from project.config import load, make_metrics_dir
from project.database import declared, is_direct
from project.middleware import POLICY, content_security, loopback_only
from project.topology import YARD
from switchyard.broker.stores.job_records import LIVE_TTL_MS
from switchyard.conf import DEFAULT_YARD
from switchyard.jobs.once import KEPT as ONCE_KEPT
from switchyard.middleware.retries import span_of
from switchyard.setting_values import InvalidSetting
from tests.factories.commands import manage

GOOD = {
    "DJANGO_DEBUG": "0", "DJANGO_SECRET_KEY": "x" * 50, "SWITCHYARD_PAYMENT_SECRET": "whsec_" + "y" * 44,
    "DJANGO_ALLOWED_HOSTS": "yard.example.com", "SWITCHYARD_BROKER_URL": "redis://user:pw@valkey:6379/0",
    "DATABASE_URL": "postgres://u:p@db/yard", "SWITCHYARD_PUBLIC_URL": "https://yard.example.com/",
}  # fmt: skip
PRINT = """
from project import settings as found
options = found.DATABASES["default"]["OPTIONS"]
print(found.EMAIL_USE_TLS, found.EMAIL_USE_SSL, options["connect_timeout"], options["options"])
"""
URL = "postgresql://yard:word@db/yard"
FOLDER = Path("/var/lib/yard")
PATHS = ["/static/none.css", "/static/../project/settings.py", "/static/%2e%2e/%2e%2e/manage.py", "/static/"]


def test_development_needs_nothing_and_a_complete_production_environment_is_taken():
    development, production = load({}), load(GOOD)

    assert development.debug and not production.debug
    assert development.library.broker_url.startswith("unix://")
    assert development.database_url.endswith("db.sqlite3")
    assert (production.allowed_hosts, production.library.log_format) == (("yard.example.com",), "json")


def test_a_bouncer_needs_the_address_of_its_server():
    server = "postgres://u:p@server/yard"

    with pytest.raises(InvalidSetting, match="DATABASE_DIRECT_URL: is not set, and DATABASE_BOUNCED=1"):
        load({**GOOD, "DATABASE_BOUNCED": "1"})
    config = load({**GOOD, "DATABASE_BOUNCED": "1", "DATABASE_DIRECT_URL": server})

    assert (config.database_bounced, config.database_direct_url) == (True, server)
    assert load(GOOD).database_direct_url == GOOD["DATABASE_URL"]


@pytest.mark.parametrize(
    ("variable", "value", "fact"),
    [
        ("DJANGO_SECRET_KEY", "", "is not set"),
        ("DJANGO_SECRET_KEY", "short", "has 5 characters"),
        ("DJANGO_ALLOWED_HOSTS", "", "is not set"),
        ("DJANGO_ALLOWED_HOSTS", "*", "allows every host"),
        ("SWITCHYARD_BROKER_URL", "", "is not set"),
        ("SWITCHYARD_BROKER_URL", "redis://valkey:6379/0", "without a password"),
        ("SWITCHYARD_BROKER_URL", "http://valkey", "'http'"),
        ("SWITCHYARD_BROKER_URL", "redis://user:pass/word@valkey:6379/0", "has a port that is not a number"),
        ("SWITCHYARD_BROKER_URL", "redis://user:word@valkey:6379/yard", "has a database that is not a number"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a:99999/0", "a port that is not a number from 0 to 65535; correct it"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@[::1/0", "has a bracket that belongs to no IPv6 address"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a:1,b:2/0", "names 2 servers; name one, or sentinels with redis+senti"),
        ("SWITCHYARD_BROKER_URL", "REDIS://u:p@a/0", "begins with 'REDIS'; write redis"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a/0?socket_timeout=nan", "socket_timeout with a value that it cannot"),
        ("SWITCHYARD_PUBLIC_URL", "https://yard:99999", "a port that is not a number from 0 to 65535; correct it"),
        (
            "SWITCHYARD_BROKER_URL",
            "rediss://user:word@a/0?ssl_ca_cert=/ca.pem",
            "'ssl_ca_cert', which redis-py does not know; write ssl_ca_certs",
        ),
        ("SWITCHYARD_BROKER_URL", "redis://user:word@a/0?socket_timeout=x", "socket_timeout with a value that it"),
        ("SWITCHYARD_BROKER_URL", "redis+sentinel://u:p@a/yard/0?sentinel_user=x", "'sentinel_user'"),
        ("SWITCHYARD_BROKER_URL", "rediss://u:p@a/0?ssl_cert_reqs=yes", "cannot have; write ssl_cert_reqs=required"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a/0?protocol=3", "cannot have; write protocol=2, or leave it out"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a/0?decode_responses=yes", "write decode_responses=no, or leave it out"),
        ("DATABASE_URL", "postgresql://u:p@db:5432/", "names no database"),
        ("DATABASE_URL", "postgresql://user:pass/word@postgres:5432/name", "has a port that is not a number"),
        (
            "DATABASE_URL",
            "postgres",
            "is not a URL; set DATABASE_URL to for example postgresql://user:password@host/name",
        ),
        ("DATABASE_URL", "postgre://u:p@db/yard", "'postgre' is not a database; set DATABASE_URL to"),
        ("DATABASE_URL", "postgresql://u:p@db/yard?pool=auto", "has pool='auto', which is not a number of connections"),
        ("DATABASE_URL", "postgresql://u:p@db/yard?pool=true", "which is not a number of connections"),
        ("DATABASE_BOUNCED", "yes", "neither 0 nor 1; set DATABASE_BOUNCED=1 for yes, or 0 for no"),
        ("DATABASE_DIRECT_URL", "postgre://u:p@db/yard", "'postgre' is not a database; set DATABASE_DIRECT_URL to"),
        ("SWITCHYARD_PAYMENT_SECRET", "", "is not set"),
        ("DJANGO_DEBUG", "yes", "neither 0 nor 1"),
        ("SWITCHYARD_LOG_FORMAT", "xml", "'xml'"),
        ("SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES", "127.0.0.1", "not a host:port"),
        ("SWITCHYARD_RETENTION_DAYS", "pictures", "a number from 0 to 36,500"),
        ("SWITCHYARD_RETENTION_DAYS", "a-b=3", "is not a name with its days"),
        ("SWITCHYARD_RETENTION_DAYS", "mails=1 mails=2", "names mails twice"),
        ("SWITCHYARD_STORAGE_URL", "ftp://bucket", "'ftp' is none of file, s3, gs; use for example file:///"),
        ("SWITCHYARD_SMTP_URL", "mail.example.com", "not an smtp: URL"),
    ],
)
def test_what_cannot_or_must_not_be_is_refused_by_name(variable, value, fact):
    with pytest.raises(InvalidSetting) as refused:
        load({**GOOD, variable: value})

    assert refused.value.name.partition(",")[0] == variable
    assert fact in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SWITCHYARD_BROKER_URL", "rediss://u:p@a/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/c.key"),
        ("SWITCHYARD_BROKER_URL", "rediss+sentinel://u:p@a,b/y/0?sentinel_ssl=no&sentinel_password=x&socket_timeout=2"),
        ("SWITCHYARD_BROKER_URL", "redis://a/0?password=p&username=u&max_connections=9&socket_keepalive=yes"),
        ("SWITCHYARD_BROKER_URL", "unix:///run/valkey.sock?db=2&password=p"),
        ("SWITCHYARD_BROKER_URL", "redis://u:p@a/0?client_name=web&socket_connect_timeout=0.5"),
        ("SWITCHYARD_BROKER_URL", "rediss://u:p@a/0?ssl_cert_reqs=none&protocol=2&decode_responses=False"),
        ("DATABASE_URL", "postgresql://u:p@db/yard?sslmode=require"),
    ],
)
def test_options_that_clients_know_are_taken(variable, value):
    load({**GOOD, "DJANGO_DEBUG": "1", variable: value})


def refused_check(**variables: str) -> str:
    """Run ``manage.py check`` in an environment that it refuses, and return what it said."""
    done = manage("check", hidden=("SWITCHYARD_", "PROMETHEUS_MULTIPROC_DIR"), **variables)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("variable", ["SWITCHYARD_STATE_DIR", "PROMETHEUS_MULTIPROC_DIR"])
def test_a_folder_that_cannot_be_used_ends_the_process_with_its_variable(tmp_path, variable):
    (tmp_path / "file").write_text("")

    said = refused_check(**{"SWITCHYARD_STATE_DIR": str(tmp_path), variable: str(tmp_path / "file/folder")})

    assert f"refused to start: {variable}: {tmp_path}/file/folder" in said
    assert f"not a directory; export {variable}=DIR for another folder" in said


def test_a_value_may_come_from_a_file_that_its_variable_names(tmp_path):
    for name in ("DATABASE_URL", "SWITCHYARD_BROKER_URL", "DJANGO_SECRET_KEY", "SWITCHYARD_ALERT_URLS"):
        (tmp_path / name).write_text(GOOD.get(name, "") + "\n")
    plain = {name: value for name, value in GOOD.items() if not (tmp_path / name).exists()}

    config = load(plain | {f"{file.name}_FILE": str(file) for file in tmp_path.iterdir()})

    assert (config.database_url, config.secret_key) == (GOOD["DATABASE_URL"], GOOD["DJANGO_SECRET_KEY"])
    assert config.library.broker_url == GOOD["SWITCHYARD_BROKER_URL"]
    assert config.library.alert_urls == ("log:",) or config.library.alert_urls == ()


def test_a_file_that_cannot_be_read_or_contradicts_its_variable_is_refused(tmp_path):
    missing = str(tmp_path / "none")

    with pytest.raises(InvalidSetting, match=r"DATABASE_URL_FILE: .*none cannot be read: No such file"):
        load({"DATABASE_URL_FILE": missing})
    with pytest.raises(InvalidSetting, match="DATABASE_URL_FILE: is set, and DATABASE_URL as well"):
        load(GOOD | {"DATABASE_URL_FILE": missing})


def test_what_is_secret_is_not_shown_with_the_rest():
    secrets = {
        "DJANGO_SECRET_KEY": "canary-1" + "x" * 50,
        "SWITCHYARD_PAYMENT_SECRET": "canary-2" + "y" * 44,
        "SWITCHYARD_METRICS_TOKEN": "canary-3",
        "SWITCHYARD_BROKER_URL": "redis://user:canary-4@valkey:6379/0",
        "DATABASE_URL": "postgres://u:canary-5@db/yard",
        "SWITCHYARD_SMTP_URL": "smtp://u:canary-6@mail:587",
        "SWITCHYARD_ALERT_URLS": "https://chat.example.com/canary-7",
    }

    config = load({**GOOD, **secrets})

    assert "canary" not in repr(config)
    assert "canary" not in pprint.pformat(config)  # what Django's debug page prints
    assert "yard.example.com" in repr(config)


@pytest.mark.parametrize(
    ("folder", "name"), [("metrics", "SWITCHYARD_STATE_DIR"), ("elsewhere", "PROMETHEUS_MULTIPROC_DIR")]
)
def test_a_folder_of_metrics_that_cannot_be_made_names_its_variable(tmp_path, folder, name):
    (tmp_path / folder).write_text("")
    library = replace(settings.SWITCHYARD, state_dir=tmp_path, metrics_dir=tmp_path / folder)

    with pytest.raises(InvalidSetting) as refusal:
        make_metrics_dir(library)

    fact = f"{tmp_path}/{folder} cannot be created: file exists"
    assert str(refusal.value) == f"{name}: {fact}; export {name}=DIR for another folder"


def test_everything_is_kept_for_good_or_for_the_days_of_its_kind():
    assert load({}).retention_days == {}
    assert load({"SWITCHYARD_RETENTION_DAYS": "a=1, b=2 c=0"}).retention_days == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("url", "query", "printed"),
    [
        ("smtp://127.0.0.1:8025", "", "False False 5"),
        ("smtp://user:password@mail.example:587", "?connect_timeout=2", "True False 2"),
        ("smtps://user:password@mail.example", "", "False True 5"),
    ],
)
def test_no_password_goes_over_an_open_line_and_no_wait_is_endless(url, query, printed):
    database = f"postgresql://yard:word@127.0.0.1/yard{query}"
    environment = os.environ | {"SWITCHYARD_SMTP_URL": url, "DATABASE_URL": database}

    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(f"{printed} -c lock_timeout=5s ")


def entry_of(query: str = "", *, bounced: bool = False) -> Any:
    return declared(URL + query, bounced=bounced, state_dir=FOLDER)


def test_a_server_has_a_timeout_for_locks_and_no_pool_or_one_that_is_checked_and_gives_up_soon():
    entry, pooled = entry_of(), entry_of("?pool=12")

    assert entry["OPTIONS"]["options"] == (
        "-c lock_timeout=5s -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"
        " -c tcp_user_timeout=20s"
    )
    assert "pool" not in entry["OPTIONS"] and "pool" not in entry_of("?pool=0")["OPTIONS"]
    assert not entry["DISABLE_SERVER_SIDE_CURSORS"]
    pool = pooled["OPTIONS"]["pool"]
    assert (pool["min_size"], pool["max_size"]) == (0, 12)
    assert pool["timeout"] <= 5 and pool["reconnect_timeout"] <= 5
    assert (pooled["CONN_MAX_AGE"], pooled["CONN_HEALTH_CHECKS"]) == (0, True)


def test_a_bouncer_gets_neither_start_up_options_nor_cursors_and_what_somebody_wrote_is_left_for_the_check():
    entry, written = (entry_of(query, bounced=True) for query in ("", "?options=-c%20lock_timeout%3D1s&pool=3"))

    assert "options" not in entry["OPTIONS"]
    assert entry["OPTIONS"]["connect_timeout"] == 5
    assert entry["DISABLE_SERVER_SIDE_CURSORS"]
    assert written["OPTIONS"]["options"] == "-c lock_timeout=1s"
    assert written["OPTIONS"]["pool"]["max_size"] == 3


@pytest.mark.parametrize(
    ("line", "direct"),
    [("manage.py migrate --noinput", True), ("manage.py switchyard runpool urgent", False), ("manage.py", False)],
)
def test_commands_of_the_schema_go_past_the_bouncer(line, direct):
    assert is_direct(line.split()) is direct


@pytest.mark.parametrize("path", PATHS)
@override_settings(DEBUG=True, STATIC_URL="/static/")
def test_a_missing_static_file_is_404(path):
    answer = async_to_sync(AsyncClient(raise_request_exception=False).get)(path)

    assert answer.status_code == 404
    assert b"payment_secret" not in answer.content


def test_a_static_file_is_served():
    assert async_to_sync(AsyncClient().get)("/static/switchyard_operations/room.css").status_code == 200


KEYS = {"DJANGO_SECRET_KEY": "k" * 40, "SWITCHYARD_PAYMENT_SECRET": "p" * 40}


def status(**headers: str) -> int:
    def answered(request: HttpRequest) -> HttpResponse:
        return HttpResponse("answered")

    response: HttpResponse = loopback_only(answered)(RequestFactory().get("/admin/", **headers))
    if response.status_code == 403:
        assert b"DJANGO_SECRET_KEY to a random value of 50 characters or more" in response.content
        assert b"SWITCHYARD_PAYMENT_SECRET to one of 32" in response.content
    return response.status_code


@pytest.mark.parametrize(
    ("address", "headers", "answer"),
    [
        *((address, {}, 200) for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")),
        *((each, {"HTTP_HOST": "localhost"}, 403) for each in ("192.168.1.7", "172.17.0.1", "2001:db8::1", "", "x")),
        ("127.0.0.1", {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 403),
    ],
)
def test_this_machine_alone_is_answered(address, headers, answer):
    assert status(REMOTE_ADDR=address, **headers) == answer


@pytest.mark.parametrize("given", [(), ("DJANGO_SECRET_KEY",), ("SWITCHYARD_PAYMENT_SECRET",), tuple(KEYS)])
def test_one_fixed_key_is_enough(given):
    assert load({name: KEYS[name] for name in given}).has_development_keys is (len(given) < 2)


def policy_of(response: HttpResponse) -> str:
    answer = content_security(lambda request: response)(RequestFactory().get("/"))
    return str(answer.get("Content-Security-Policy", ""))


def test_a_page_gets_the_policy_and_what_is_none_or_has_its_own_is_left_alone():
    own = HttpResponse("<p>", headers={"Content-Security-Policy": "default-src 'none'"})

    assert policy_of(HttpResponse("<p>")) == POLICY
    assert "object-src 'none'" in POLICY
    assert policy_of(HttpResponse("{}", content_type="application/json")) == ""
    assert policy_of(own) == "default-src 'none'"


LEAST = timedelta(minutes=20)
MOST = min(ONCE_KEPT, ATTEMPTS_KEPT, timedelta(milliseconds=LIVE_TTL_MS))
ACTORS = [actor for actor in dramatiq.get_broker().actors.values() if actor.queue_name in YARD.lanes]


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.actor_name)
def test_retries_of_an_actor_outlast_twenty_minutes_and_nothing_that_is_kept_for_it(actor):
    least_ms, most_ms = span_of(actor, YARD.queue_of(actor.queue_name).retry)

    assert timedelta(milliseconds=least_ms) > LEAST
    assert timedelta(milliseconds=most_ms) < MOST


def test_a_project_that_declares_no_yard_has_the_same_patience():
    for queue in DEFAULT_YARD.queues:
        assert timedelta(milliseconds=queue.retry.span_ms()[0]) > LEAST
