"""Settings of the library, its databases, storages and the file of a yard: wrong or unsafe ones get a remedy."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import registry
from django.db.utils import ConnectionHandler
from django.test import override_settings

from switchyard import conf, database
from switchyard.broker.topology import Yard
from switchyard.conf import DEFAULT_YARD, declared_yard, settings_digest, switchyard_settings, yard_of
from switchyard.database import RESERVED_CONNECTIONS, SPARE_CONNECTIONS, WEB_CONNECTIONS, planned_connections, pool_size
from switchyard.files.addresses import address_of, results_of
from switchyard.operations.findings.database import command_of, sqlite_writer
from switchyard.setting_values import InvalidSetting
from switchyard.workers.checks import check_yard
from switchyard.workers.checks.installation import unsafe_exposure
from tests.unit.documentation import pages
from tests.waiting import wait_for

ENVIRONMENT = {
    "SWITCHYARD_BROKER_URL": "redis://user:word@environment:6379/0",
    "SWITCHYARD_ALERT_URLS": "log: mailto:a@b",
}
START = "from switchyard.broker.topology import Pool, Queue, Yard\n\n"
QUEUE = 'Queue("mail", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000'


def read(declared: Any, environ: dict[str, str] | None = None, *, debug: bool = True) -> conf.SwitchyardSettings:
    return conf.read(declared, environ or {}, debug=debug, base_dir="/srv/site", hosts=["yard.example.com"])


def test_nothing_declared_gives_development_defaults_and_the_default_yard():
    found = read({})

    assert found.topology is DEFAULT_YARD
    assert [queue.name for queue in DEFAULT_YARD.queues] == ["urgent", "default"]
    assert (check_yard(DEFAULT_YARD), found.broker_url) == ([], "unix:///srv/site/var/valkey.sock")
    assert (found.state_dir, found.metrics_dir) == (Path("/srv/site/var"), Path("/srv/site/var/metrics"))
    assert (found.log_format, found.configure_logging, found.debug) == ("console", False, True)


def test_the_dict_comes_before_the_environment():
    found = read({"BROKER_URL": "redis://declared:6379/1"}, ENVIRONMENT)

    assert (found.broker_url, found.alert_urls) == ("redis://declared:6379/1", ("log:", "mailto:a@b"))


def test_a_topology_is_named_or_given():
    yard = Yard(queues=DEFAULT_YARD.queues[:1], pools=DEFAULT_YARD.pools[:1])

    assert read({"TOPOLOGY": yard}).topology is yard
    assert read({"TOPOLOGY": "project.topology.YARD", "CORES": 2}).topology == settings.SWITCHYARD.topology


@pytest.mark.parametrize(
    ("declared", "named", "fact"),
    [
        ({"BROKER_ULR": "x"}, "SWITCHYARD['BROKER_ULR']", "did you mean BROKER_URL?"),
        ({"QUEUES": []}, "SWITCHYARD['QUEUES']", "the settings are TOPOLOGY"),
        ([], "SWITCHYARD", "is a list, not a dict"),
        ({"BROKER_URL": 6379}, 'SWITCHYARD["BROKER_URL"]', "is a int, not a string"),
        ({"BROKER_URL": "http://valkey"}, 'SWITCHYARD["BROKER_URL"]', "'http'"),
        ({"TOPOLOGY": "no.such.YARD"}, 'SWITCHYARD["TOPOLOGY"]', "No module named"),
        ({"TOPOLOGY": 3}, 'SWITCHYARD["TOPOLOGY"]', "is a int, not a Yard"),
        ({"CONFIGURE_LOGGING": "yes"}, 'SWITCHYARD["CONFIGURE_LOGGING"]', "neither True nor False"),
        ({"METRICS_DIR": 3}, 'SWITCHYARD["METRICS_DIR"]', "not a path"),
        ({"ALERT_URLS": {"log:"}}, 'SWITCHYARD["ALERT_URLS"]', "not a list of strings"),
        ({"PUBLIC_URL": "yard"}, 'SWITCHYARD["PUBLIC_URL"]', "not a web address"),
        ({"AUDIT_DAYS": 0}, 'SWITCHYARD["AUDIT_DAYS"]', "a number from 1 to 36,500"),
        ({"LOG_FORMAT": "xml"}, 'SWITCHYARD["LOG_FORMAT"]', "'xml'"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_with_name_fact_and_remedy(declared, named, fact):
    with pytest.raises(InvalidSetting) as refused:
        read(declared)

    assert refused.value.name == named
    assert fact in str(refused.value) and refused.value.remedy


def test_production_is_reached_by_its_first_host():
    assert read({}, ENVIRONMENT, debug=False).public_url == "https://yard.example.com"


def test_a_password_is_in_no_refusal_and_no_repr():
    with pytest.raises(InvalidSetting) as refused:
        read({"BROKER_URL": "redis://user:canary/word@valkey:6379/0"})

    assert "canary" not in str(refused.value)
    assert "canary" not in repr(read({"BROKER_URL": "redis://user:canary@valkey:6379/0"}))


def test_a_dict_in_djangos_settings_is_read_once_and_an_override_holds_until_its_end():
    own = switchyard_settings()

    with override_settings(SWITCHYARD={"BROKER_URL": "redis://127.0.0.1:1/0", "RELEASE": "seven"}):
        first = switchyard_settings()

        assert (first.broker_url, first.release) == ("redis://127.0.0.1:1/0", "seven")
        assert switchyard_settings() is first
        assert declared_yard() is DEFAULT_YARD
        with override_settings(SWITCHYARD=replace(own, metrics_token="other")):
            assert switchyard_settings().metrics_token == "other"

    assert switchyard_settings() is own


@pytest.mark.parametrize(("declared", "environ"), [({"CORES": 3}, {}), ({}, {"SWITCHYARD_CORES": "3"})])
def test_cores_of_the_settings_replace_the_measured_ones(declared, environ):
    yard = Yard(DEFAULT_YARD.queues, (replace(DEFAULT_YARD.pools[0], processes="cores"), *DEFAULT_YARD.pools[1:]))

    assert [pool.children for pool in read({"TOPOLOGY": yard, **declared}, environ).topology.pools] == [3, 1, 1]


@pytest.mark.parametrize(("declared", "environ"), [({"SMALL": 4}, {}), ({}, {"SWITCHYARD_SMALL": "4"})])
def test_a_small_yard_has_one_pool_for_all_lanes_by_promise(declared, environ):
    [pool] = read({"TOPOLOGY": DEFAULT_YARD, **declared}, environ).topology.pools

    assert pool.promises == (("urgent",), ("default",), ("urgent-retry", "default-retry"))
    assert (pool.children, pool.slots, pool.prefetch) == (1, 4, 4)
    assert pool.memory_limit_bytes == DEFAULT_YARD.pools[0].memory_limit_bytes


def test_a_small_yard_has_a_slot_for_each_promise():
    with pytest.raises(InvalidSetting, match="slots is 2") as refused:
        read({"SMALL": 2})

    assert "write 3 or more, one for each of urgent; default; urgent-retry, default-retry" in str(refused.value)


def test_the_digest_differs_by_settings_and_databases_not_by_cores_and_folders(monkeypatch):
    own = switchyard_settings()

    def digest_of(**changes: Any) -> str:
        with override_settings(SWITCHYARD=replace(own, **changes)):
            return settings_digest()

    here = digest_of()
    assert digest_of(state_dir=Path("/srv/b"), topology=own.topology.with_cores(7)) == here
    of = {here, digest_of(topology=DEFAULT_YARD), digest_of(broker_url="redis://b:6379/0")}
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", "another")
    assert len({*of, settings_digest()}) == 4


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (f"YARD = Yard((\n    {QUEUE}, {more}),\n), ())", rf"{words} \(wrong_yard\.py:4\)$")
        for more, words in (
            ("calls=5", r"queue mail: calls is 5; write .*"),
            ("maxdepth=5", r"Queue has no 'maxdepth'; did you mean 'max_depth'\? It has name, objective_ms, .*"),
            ("colour=5", r"Queue has no 'colour'; it has name, .*"),
            ("timeout=5", r"Queue has no 'timeout'; it has name, .*"),
            ("max_retries=5", r"Queue has no 'max_retries'; it is an option of RetryPolicy\(.* Queue has name, .*"),
        )
    ]
    + [
        (
            'YARD = Yard((), (Pool("mail", "threads", ("mail",), processes=1, concurrency=4),))',
            r"Pool has no 'concurrency'; it has name, kind, .* \(wrong_yard\.py:3\)$",
        ),
        (
            'YARD = Yard((Queue("mail"),), ())',
            r"a Queue lacks objective_ms, soft_limit_ms, hard_limit_ms; write objective_ms=\.\.\., .*py:3\)$",
        ),
        ("YARD = Yard(())", r"a Yard lacks pools; write pools=\.\.\. \(wrong_yard\.py:3\)$"),
        (
            "YARD = Yard((), (), 1, (), None, (), 2)",
            r"Yard\(\.\.\.\) takes from 3 to 7 .*; a Yard has queues, .*wrong_yard\.py:3\)$",
        ),
        ("yard = Yard((), ())", r'"YARD" attribute/class; name a Yard, for example "mysite.topology.YARD"$'),
        ("YARD = 5", r"is a int, not a Yard; declare one with Yard\("),
    ],
)
def test_a_mistake_names_its_line(tmp_path, monkeypatch, declared, words):
    (tmp_path / "wrong_yard.py").write_text(START + declared + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_yard", raising=False)

    with pytest.raises(InvalidSetting, match=rf'^SWITCHYARD\["TOPOLOGY"\]: .*{words}'):
        yard_of('SWITCHYARD["TOPOLOGY"]', "wrong_yard.YARD")


def test_a_fault_of_other_code_there_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_yard.py").write_text("YARD = len(5)\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(TypeError, match="has no len"):
        yard_of('SWITCHYARD["TOPOLOGY"]', "broken_yard.YARD")


SAFE_KEY = "kq3v9x1m7c5b2n8z4l6j0h_wertyuiopasdfghjklQWERTZUIOP"
SAFE = {
    "public_url": "https://yard.example.com", "metrics_token": "",
    "broker_url": "rediss://user:password@93.184.216.34:6379/0", "place_url": "",
}  # fmt: skip


@pytest.fixture
def safe(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = SAFE_KEY, []
    settings.ALLOWED_HOSTS = ["yard.example.com"]
    settings.SWITCHYARD = replace(settings.SWITCHYARD, **SAFE)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8")


def named() -> list[str]:
    found = unsafe_exposure()
    assert {message.id for message in found} <= {"switchyard.E060"}
    assert not any("password" in f"{message.msg}{message.hint}" for message in found)
    return [str(message.obj) for message in found]


@pytest.mark.usefixtures("safe")
def test_a_safe_yard_passes_and_the_check_is_one_of_a_deploy():
    assert named() == []
    assert unsafe_exposure in registry.registry.deployment_checks


@pytest.mark.usefixtures("safe")
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
def test_an_unsafe_setting_is_named(changed, name, settings):
    settings.SWITCHYARD = replace(settings.SWITCHYARD, **changed)

    assert named() == ([name] if name else [])


@pytest.mark.usefixtures("safe")
@pytest.mark.parametrize(
    ("key", "forwarders"), [("short", "*"), (f"django-insecure-{SAFE_KEY}", "127.0.0.1,*"), ("x" * 60, "10.0.0.1 *")]
)
def test_weak_keys_fallbacks_too_and_forwarders_that_are_everybody_are_refused(key, forwarders, settings, monkeypatch):
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS, settings.ALLOWED_HOSTS = key, [key], ["*"]
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", forwarders)

    assert sorted(named()) == ["ALLOWED_HOSTS", "FORWARDED_ALLOW_IPS", "SECRET_KEY", "SECRET_KEY"]


WAL = "3: POSIX  ADVISORY  WRITE {pid} fe:01:{inode} 120 120\n"
RESERVED = "4: POSIX  ADVISORY  WRITE {pid} 00:2f:{inode} 1073741825 1073741825\n"
READER = "5: POSIX  ADVISORY  READ  {pid} fe:01:{inode} 124 124\n"
WAITER = "3: -> POSIX  ADVISORY  WRITE 99999 fe:01:{inode} 120 120\n"
PAGE = pages.read("docs/how-to/run-on-postgresql.md")
# PostgreSQL's own, and how much of it a person with psql, a backup and a second web need.
DEFAULT_LIMIT, MARGIN = 100, 5


@pytest.mark.parametrize(
    ("suffix", "lines", "held"),
    [("-shm", READER + WAL, True), ("", RESERVED, True), ("-shm", READER, False), ("-shm", WAITER, False)],
)
def test_only_who_holds_the_write_lock_is_named(tmp_path, suffix, lines, held):
    for name in ("db", "db-shm"):
        (tmp_path / name).touch()
    inode = (tmp_path / f"db{suffix}").stat().st_ino
    table = tmp_path / "locks"
    table.write_text(lines.format(pid=os.getpid(), inode=inode))

    found = sqlite_writer(tmp_path / "db", table)

    assert (found is not None and found[0] == os.getpid()) == held
    assert sqlite_writer(tmp_path / "db", tmp_path / "none") is None, "a kernel without the table"


def test_passwords_of_a_command_line_are_not_told():
    words = ("postgres://ada:opensesame@db/x", "--password=opensesame", "--api-token", "opensesame", "file.sql")
    command = ["python", "-c", "input()", *words]  # without this clone's path: a long command line is cut
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE) as process:
        # Until it has executed the command, the new process has this one's command line or none.
        shown = wait_for(lambda: (line := command_of(process.pid)).endswith("file.sql") and line)
        process.communicate(b"\n")

    assert "opensesame" not in shown and "postgres://…@db/x --password=… --api-token … file.sql" in shown


@pytest.mark.parametrize("size", [None, 20])
def test_the_yard_of_a_project_that_declares_none_fits_a_postgres_that_nobody_configured(size):
    planned = planned_connections(DEFAULT_YARD, pool_size=size)

    assert planned + MARGIN <= DEFAULT_LIMIT - RESERVED_CONNECTIONS
    assert f"**{planned}**" in PAGE


def test_the_page_says_what_the_repositorys_own_yard_may_open():
    planned = planned_connections(settings.SWITCHYARD.topology.with_cores(2))

    assert re.search(rf"\| {planned} on two cores.*at least {planned + RESERVED_CONNECTIONS}", PAGE, re.DOTALL)


def test_a_pool_of_django_bounds_the_web_and_adds_a_connection_for_async_actors_to_each_child():
    children = sum(pool.most_children for pool in DEFAULT_YARD.pools)
    slots = planned_connections(DEFAULT_YARD) - WEB_CONNECTIONS - SPARE_CONNECTIONS

    assert planned_connections(DEFAULT_YARD, pool_size=7) == slots + children + 7 + SPARE_CONNECTIONS


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, None),
        ({"pool": False}, None),
        ({"pool": True}, 4),
        ({"pool": {"min_size": 6}}, 6),
        ({"pool": {"min_size": 0, "max_size": 20}}, 20),
    ],
)
def test_djangos_pool_size_is_read(options, size, monkeypatch):
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": options}})
    monkeypatch.setattr(database, "connections", handler)

    assert pool_size("default") == size


NAME = "SWITCHYARD_STORAGE_URL"
RESULTS = "SWITCHYARD_RESULTS_URL"


def refuses(read_address: Any, name: str, url: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words) as refused:
        read_address(name, url)
    assert str(refused.value).startswith(f"{name}: ") and "hunter2" not in str(refused.value)


def test_an_address_of_s3_is_read_whole():
    url = "s3://yard-files/prod/eu?endpoint_url=https://s3.example.com:9000/&region=eu-1&path_style=1&link_s=300"

    address = address_of(NAME, url)

    assert address.entry == {
        "BACKEND": "switchyard.files.s3.S3Bucket",
        "OPTIONS": {
            "bucket_name": "yard-files", "location": "prod/eu", "endpoint_url": "https://s3.example.com:9000",
            "region_name": "eu-1", "addressing_style": "path", "querystring_expire": 300,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("", "is not a URL"),
        ("/srv/media", "is not a URL"),
        ("ftp://bucket", "'ftp' is none of file, s3, gs"),
        ("s3://", "'' is not a name of a bucket"),
        ("s3://ab", "'ab' is not a name of a bucket"),
        ("s3://bucket/../up", "is not a prefix of keys"),
        ("s3://key:hunter2@bucket", "holds a user, a password or a port"),
        ("s3://bucket:hunter2", "is not a URL"),
        ("s3://bucket?acl=public-read", "'acl' is not an option of s3:"),
        ("s3://bucket?path_style=yes", "path_style='yes' is neither 0 nor 1"),
        ("s3://bucket?link_s=604801", "link_s='604801' is not a number from 0 to 604,800"),
        ("s3://bucket?endpoint_url=minio:9000", "endpoint_url is not an http: or https: address"),
        ("s3://bucket?endpoint_url=http://key:hunter2@minio", "or holds a password"),
        ("s3://bucket?region=a b", "region='a b' is not a name"),
        ("gs://bucket?link_s=300", "'link_s' is not an option of gs:"),
        ("file://srv/media", "names the host 'srv'"),
        ("file:", "names no folder"),
        ("file:///srv?x=1", "'x' is not an option of file:"),
    ],
)
def test_an_unusable_address_is_refused_with_a_good_one(url, fact):
    refuses(address_of, NAME, url, rf"{re.escape(fact)}.*; ")


def test_a_folder_a_bucket_of_google_and_each_store_have_an_address():
    assert address_of(NAME, "file:///srv/with%20space").folder == "/srv/with space"
    assert address_of(NAME, "gs://yard-files?project=yard").options == {"project_id": "yard"}
    assert results_of(RESULTS, "").kind == results_of(RESULTS, "broker:").kind == "broker"
    assert results_of(RESULTS, "database:").kind == "database"
    assert results_of(RESULTS, "class:mysite.results.Mine").path == "mysite.results.Mine"
    found = results_of(RESULTS, "s3://results/yard?region=eu-1")
    assert (found.kind, found.bucket and found.bucket.bucket) == ("s3", "results")


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("redis://:hunter2@host", "'redis' is none of broker, database, s3, gs, class; use for example database:"),
        ("cassandra://host", "cassandra: is not supported; write a class with put and get, and name it: class:"),
        ("database:other", "has more than database: needs; write database:"),
        ("class:Mine", "names no class; use for example class:mysite.results.MyResults"),
        ("s3://a", "'a' is not a name of a bucket"),
    ],
)
def test_an_unusable_store_of_results_is_refused_with_a_good_one(value, fact):
    refuses(results_of, RESULTS, value, rf"\A{RESULTS}: {re.escape(fact)}")
