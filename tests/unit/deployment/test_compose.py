"""The compose project: one confined container a pool, with memory enough, in an environment that production accepts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from django.conf import settings

from project.config import load
from switchyard.broker.topology import MOST_ALONE, Yard
from switchyard.conf import DEFAULT_YARD
from switchyard.database import RESERVED_CONNECTIONS, SPARE_CONNECTIONS, WEB_CONNECTIONS, planned_connections
from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import COMPOSE_FILE, RENDERED_CORES, render, too_small
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.unit.deployment.yards import SPARE, VANS, YARD


def services_of(yard: Yard, cores: int = RENDERED_CORES) -> dict[str, Any]:
    return yaml.safe_load(render("compose", yard, cores)[COMPOSE_FILE])["services"]


SERVICES = services_of(settings.SWITCHYARD.topology)
OWN = [name for name, service in SERVICES.items() if "build" in service]
ROOT = settings.BASE_DIR
DEV_LOCK = (ROOT / "requirements-dev.txt").read_text()
# Packages of the extra s3 beside those of requirements.txt.
CLIENT = ("boto3", "botocore", "django-storages", "jmespath", "s3transfer")
VALUES = {
    "DJANGO_ALLOWED_HOSTS": "yard.example.com",
    "SWITCHYARD_SMTP_URL": "smtps://user:word@mail.example.com:465",
    "SWITCHYARD_PUBLIC_URL": "https://yard.example.com",
}


def filled_in(value: str) -> str:
    """Replace compose's references as compose would, with a long secret where none is set."""

    def fill(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return VALUES.get(name, "s3cret-" * 8 if default is None else default)

    return re.sub(r"\$\{(?P<name>\w+)(?::\?[^}]*|:-(?P<default>[^}]*))?\}", fill, value)


def test_every_pool_of_the_yard_has_its_container_and_no_dead_list_has_one() -> None:
    services = services_of(YARD)

    pools = {name: service["command"][3:5] for name, service in services.items() if name.startswith("pool-")}
    assert pools == {"pool-vans": ["runpool", "vans"], "pool-spare": ["runpool", "spare"]}


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OWN])
def test_image_of_others_is_pinned_and_runs_without_root(name: str) -> None:
    service = SERVICES[name]

    assert re.search(r":v?\d+\.\d+", service["image"])
    assert not service["user"].startswith("0")


@pytest.mark.parametrize("name", ["valkey", "postgres", "prometheus"])
def test_store_is_on_the_inner_network_alone_and_publishes_nothing(name: str) -> None:
    assert SERVICES[name]["networks"] == ["yard"]
    assert "ports" not in SERVICES[name]


def test_only_loopback_is_published() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("pool-")])
def test_pool_is_killed_only_after_it_had_time_to_drain(name: str) -> None:
    grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))

    assert grace_s > GRACE_S + 5


@pytest.mark.parametrize("name", OWN)
def test_environment_is_one_that_production_accepts(name: str) -> None:
    environment = {key: filled_in(value) for key, value in SERVICES[name]["environment"].items()}

    config = load(environment)

    assert config.debug is False
    assert config.library.broker_url.startswith("redis://default:")
    assert config.storage.folder == "/srv/media"
    assert config.library.results.kind == "broker"


@pytest.mark.parametrize("name", OWN)
def test_files_and_results_may_lie_in_a_bucket(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "s3://yard-files/production?region=eu-central-1"
    for variable in ("SWITCHYARD_STORAGE_URL", "SWITCHYARD_RESULTS_URL"):
        monkeypatch.setitem(VALUES, variable, address)
    monkeypatch.setitem(VALUES, "SWITCHYARD_RETENTION_DAYS", "exports=30")

    config = load({key: filled_in(value) for key, value in SERVICES[name]["environment"].items()})

    assert (config.storage.scheme, config.library.results.kind) == ("s3", "s3")
    assert config.retention_days == {"exports": 30}


@pytest.mark.parametrize(("extra", "packages"), [("s3", CLIENT), ("rabbitmq", ("pika",))])
def test_image_has_the_clients_as_they_are_tested(extra: str, packages: tuple[str, ...]) -> None:
    pinned = [re.findall(rf"^{name}==[\s\S]*?(?=^\S)", DEV_LOCK + "\nend", re.MULTILINE) for name in packages]

    assert (ROOT / f"ops/requirements-{extra}.txt").read_text().partition("\n")[2] == "".join(one for [one] in pinned)
    assert f"!ops/requirements-{extra}.txt" in (ROOT / ".dockerignore").read_text().splitlines()


def test_container_holds_children_a_successor_and_isolated_ones_beside_supervisor_and_files() -> None:
    limited = replace(VANS, memory_limit_bytes=100 * 2**20, isolated=2)

    assert rendered_files.memory_mib(VANS) == 256 + 160 + (3 + 1 + 4) * rendered_files.CHILD_MIB["processes"]
    assert rendered_files.memory_mib(limited) == 256 + 160 + (3 + 1 + 2) * 100
    services = services_of(Yard(YARD.queues, (limited, SPARE)))
    assert services["pool-vans"]["deploy"]["resources"]["limits"]["memory"] == "1016M"


def test_every_pool_and_queue_of_the_shipped_yards_has_its_limits() -> None:
    [data_mib] = re.findall(r"--maxmemory (\d+)mb", SERVICES["valkey"]["command"][0])
    for yard in (settings.SWITCHYARD.topology, DEFAULT_YARD):
        assert all(pool.memory_limit_bytes and pool.recycle_after for pool in yard.pools)
        depths = [queue.max_depth for queue in yard.queues if queue.max_depth is not None]
        assert len(depths) == len(yard.queues)
        # At 1 KB a job, the waiting ones leave the broker more than half of its memory.
        assert sum(depths) * 1_024 < int(data_mib) * 2**20 / 2


def test_pool_of_cores_is_rendered_for_a_number_of_cores_and_other_pools_are_not_touched() -> None:
    cores = Yard(YARD.queues, (replace(VANS, processes="cores", memory_limit_bytes=10**8), SPARE))

    few, many = (services_of(cores, count) for count in (2, 8))

    limits = [services["pool-vans"]["deploy"]["resources"]["limits"] for services in (few, many)]
    assert [limit["cpus"] for limit in limits] == ["2.00", "8.00"]
    assert [limit["memory"] for limit in limits] == ["1084M", "1656M"]
    assert few["pool-spare"] == many["pool-spare"]
    opened = [int(services["postgres"]["command"][-1].partition("=")[2]) for services in (few, many)]
    assert opened[1] - opened[0] == 6


def test_database_offers_what_all_pools_and_the_web_may_open() -> None:
    spare = WEB_CONNECTIONS + SPARE_CONNECTIONS

    vans = VANS.total_slots + VANS.slots + MOST_ALONE["processes"]
    assert planned_connections(YARD) == vans + 2 + spare
    assert SPARE.database_connections == 2
    # Else the doctor warns of the shipped files from the first day: PostgreSQL keeps some of its connections back.
    limit = int(services_of(YARD)["postgres"]["command"][-1].partition("=")[2])
    assert limit == planned_connections(YARD) + RESERVED_CONNECTIONS


def test_server_never_evicts_and_keeps_an_append_only_file() -> None:
    start: Any = SERVICES["valkey"]["command"][0]

    assert "--appendonly yes" in start
    assert "--maxmemory-policy noeviction" in start
    assert "requirepass" in start.split("exec", maxsplit=1)[0]  # in a file, not in the process list


LIMITED = Yard(YARD.queues, (replace(YARD.pools[0], memory_limit_bytes=200_000_000, isolated=1), SPARE))


def test_sum_is_that_of_the_containers_and_is_compared_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered_files, "memory_here_mib", lambda: 5_000)
    pools = sum(rendered_files.memory_mib(pool) for pool in LIMITED.pools)

    line = rendered_files.summary(LIMITED)

    assert f"{pools:,} MiB in the pools' containers, 4,608 MiB in the others, {pools + 4_608:,} MiB in all" in line
    assert line.endswith(
        "which is less: choose a larger one, or lower memory_limit_bytes, isolated or processes of pools"
    )


def test_container_that_is_too_small_is_named_with_figures_and_remedy_and_no_other() -> None:
    text = render("compose", LIMITED)[COMPOSE_FILE]
    less = text.replace(f"memory: {rendered_files.memory_mib(LIMITED.pools[0])}M", "memory: 0.5g")
    given = rendered_files.given_mib(text)

    [found] = too_small(LIMITED, rendered_files.given_mib(less))

    assert {"pool-vans", "pool-spare"} < set(given) and "migrate" not in given
    assert too_small(LIMITED, given) == []
    assert (found.id, found.obj) == ("switchyard.W008", "pool vans")
    assert found.msg == (
        "gets 512M in ops/compose.yaml; 3 children, a successor and 1 for isolated messages of up to 200 MB, "
        "beside their supervisor and 256M for /tmp, need 1,370M"
    )
    assert "topology render compose" in (found.hint or "")
