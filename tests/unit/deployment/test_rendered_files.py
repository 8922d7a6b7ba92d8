"""Rendered files and what lies beside them: those on disk are the yard's, confined, large enough, and linted."""

import copy
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import CommandError, call_command
from pytest_django import Settings

from project.config import load
from switchyard.broker.topology import MOST_ALONE, Yard
from switchyard.conf import DEFAULT_YARD
from switchyard.database import RESERVED_CONNECTIONS, SPARE_CONNECTIONS, WEB_CONNECTIONS, planned_connections
from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import BESIDE, COMPOSE_FILE, render, too_small
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.factories.endpoints import Answering, answers_of
from tests.unit.deployment.yards import SPARE, VANS, YARD


def services_of(yard: Yard, cores: int = rendered_files.RENDERED_CORES) -> dict[str, Any]:
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


def test_every_pool_of_the_yard_has_its_container_no_dead_list_has_one_and_only_loopback_is_published():
    services = services_of(YARD)
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    pools = {name: service["command"][3:5] for name, service in services.items() if name.startswith("pool-")}
    assert pools == {"pool-vans": ["runpool", "vans"], "pool-spare": ["runpool", "spare"]}


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_confined(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OWN])
def test_image_of_others_is_pinned_and_runs_without_root(name):
    service = SERVICES[name]

    assert re.search(r":v?\d+\.\d+", service["image"])
    assert not service["user"].startswith("0")


@pytest.mark.parametrize("name", ["valkey", "postgres", "prometheus"])
def test_store_is_on_the_inner_network_alone_and_publishes_nothing(name):
    assert SERVICES[name]["networks"] == ["yard"]
    assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("pool-")])
def test_pool_is_killed_only_after_it_had_time_to_drain(name):
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > GRACE_S + 5


@pytest.mark.parametrize("name", OWN)
def test_environment_is_one_that_production_accepts(name):
    environment = {key: filled_in(value) for key, value in SERVICES[name]["environment"].items()}

    config = load(environment)

    assert config.debug is False
    assert config.library.broker_url.startswith("redis://default:")
    assert (config.storage.folder, config.library.results.kind) == ("/srv/media", "broker")


@pytest.mark.parametrize("name", OWN)
def test_files_and_results_may_lie_in_a_bucket(name, monkeypatch):
    address = "s3://yard-files/production?region=eu-central-1"
    for variable in ("SWITCHYARD_STORAGE_URL", "SWITCHYARD_RESULTS_URL"):
        monkeypatch.setitem(VALUES, variable, address)
    monkeypatch.setitem(VALUES, "SWITCHYARD_RETENTION_DAYS", "exports=30")

    config = load({key: filled_in(value) for key, value in SERVICES[name]["environment"].items()})

    assert (config.storage.scheme, config.library.results.kind) == ("s3", "s3")
    assert config.retention_days == {"exports": 30}


@pytest.mark.parametrize(("extra", "packages"), [("s3", CLIENT), ("rabbitmq", ("pika",))])
def test_image_has_the_clients_as_they_are_tested(extra, packages):
    pinned = [re.findall(rf"^{name}==[\s\S]*?(?=^\S)", DEV_LOCK + "\nend", re.MULTILINE) for name in packages]

    assert (ROOT / f"ops/requirements-{extra}.txt").read_text().partition("\n")[2] == "".join(one for [one] in pinned)
    assert f"!ops/requirements-{extra}.txt" in (ROOT / ".dockerignore").read_text().splitlines()


def test_container_holds_children_a_successor_and_isolated_ones_beside_supervisor_and_files():
    limited = replace(VANS, memory_limit_bytes=100 * 2**20, isolated=2)

    assert rendered_files.memory_mib(VANS) == 256 + 160 + (3 + 1 + 4) * rendered_files.CHILD_MIB["processes"]
    assert rendered_files.memory_mib(limited) == 256 + 160 + (3 + 1 + 2) * 100
    services = services_of(Yard(YARD.queues, (limited, SPARE)))
    assert services["pool-vans"]["deploy"]["resources"]["limits"]["memory"] == "1016M"


def test_every_pool_and_queue_of_the_shipped_yards_has_its_limits():
    [data_mib] = re.findall(r"--maxmemory (\d+)mb", SERVICES["valkey"]["command"][0])
    for yard in (settings.SWITCHYARD.topology, DEFAULT_YARD):
        assert all(pool.memory_limit_bytes and pool.recycle_after for pool in yard.pools)
        depths = [queue.max_depth for queue in yard.queues if queue.max_depth is not None]
        assert len(depths) == len(yard.queues)
        # At 1 KB a job, the waiting ones leave the broker more than half of its memory.
        assert sum(depths) * 1_024 < int(data_mib) * 2**20 / 2


def test_pool_of_cores_is_rendered_for_a_number_of_cores_and_other_pools_are_not_touched():
    cores = Yard(YARD.queues, (replace(VANS, processes="cores", memory_limit_bytes=10**8), SPARE))

    few, many = (services_of(cores, count) for count in (2, 8))

    limits = [services["pool-vans"]["deploy"]["resources"]["limits"] for services in (few, many)]
    assert [limit["cpus"] for limit in limits] == ["2.00", "8.00"]
    assert [limit["memory"] for limit in limits] == ["1084M", "1656M"]
    assert few["pool-spare"] == many["pool-spare"]
    opened = [int(services["postgres"]["command"][-1].partition("=")[2]) for services in (few, many)]
    assert opened[1] - opened[0] == 6


def test_database_offers_what_all_pools_and_the_web_may_open():
    spare = WEB_CONNECTIONS + SPARE_CONNECTIONS

    vans = VANS.total_slots + VANS.slots + MOST_ALONE["processes"]
    assert (planned_connections(YARD), SPARE.database_connections) == (vans + 2 + spare, 2)
    # Else the doctor warns of the shipped files from the first day: PostgreSQL keeps some of its connections back.
    limit = int(services_of(YARD)["postgres"]["command"][-1].partition("=")[2])
    assert limit == planned_connections(YARD) + RESERVED_CONNECTIONS


def test_server_never_evicts_and_keeps_an_append_only_file():
    start: Any = SERVICES["valkey"]["command"][0]

    assert "--appendonly yes" in start and "--maxmemory-policy noeviction" in start
    assert "requirepass" in start.split("exec", maxsplit=1)[0]  # in a file, not in the process list


LIMITED = Yard(YARD.queues, (replace(YARD.pools[0], memory_limit_bytes=200_000_000, isolated=1), SPARE))


def test_sum_is_that_of_the_containers_and_is_compared_with_the_machine(monkeypatch):
    monkeypatch.setattr(rendered_files, "memory_here_mib", lambda: 5_000)
    pools = sum(rendered_files.memory_mib(pool) for pool in LIMITED.pools)

    line = rendered_files.summary(LIMITED)

    assert f"{pools:,} MiB in the pools' containers, 4,608 MiB in the others, {pools + 4_608:,} MiB in all" in line
    assert line.endswith(
        "which is less: choose a larger one, or lower memory_limit_bytes, isolated or processes of pools"
    )


def test_container_that_is_too_small_is_named_with_figures_and_remedy_and_no_other():
    text = render("compose", LIMITED)[COMPOSE_FILE]
    less = text.replace(f"memory: {rendered_files.memory_mib(LIMITED.pools[0])}M", "memory: 0.5g")
    given = rendered_files.given_mib(text)

    [found] = too_small(LIMITED, rendered_files.given_mib(less))

    assert {"pool-vans", "pool-spare"} < set(given) and "migrate" not in given
    assert (too_small(LIMITED, given), found.id, found.obj) == ([], "switchyard.W008", "pool vans")
    assert found.msg == (
        "gets 512M in ops/compose.yaml; 3 children, a successor and 1 for isolated messages of up to 200 MB, "
        "beside their supervisor and 256M for /tmp, need 1,370M"
    )
    assert "topology render compose" in (found.hint or "")


FILES = [*sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / "ops/github/deploy.yml"]
CHECKS = (
    ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    ("actionlint", "-shellcheck=", "-pyflakes="),
    ("zizmor", "--offline", "--quiet", "--no-progress"),
)
UNITS = render("systemd", YARD)
# Systemd wants programs and folders that exist.
HERE = {"root": str(settings.BASE_DIR), "python": sys.executable, "user": "root"}
MOST_EXPOSED = 25  # tenths of systemd's score, from 0 for a unit that may do nothing to 100


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
def test_files_on_disk_are_what_the_yard_renders(target):
    rendered = rendered_files.render(target, settings.SWITCHYARD.topology)

    assert rendered_files.differences(settings.BASE_DIR, rendered) == []


def test_every_file_says_where_it_comes_from_and_is_yaml():
    for text in rendered_files.render("compose", YARD).values():
        assert text.startswith("# Rendered by `manage.py switchyard topology render compose`")
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
def test_every_process_starts_by_the_manage_py_of_any_project(target):
    """Only this repository's own takes a command of ours without the word ``switchyard`` before it."""
    lines = "\n".join(rendered_files.render(target, YARD).values()).replace(",", "").replace('"', "").splitlines()
    started = [words for line in lines if not line.startswith("#") and (words := re.findall(r"manage\.py (\w+)", line))]

    assert len(started) > 3
    assert {word for words in started for word in words} <= {"switchyard", "migrate"}


def test_every_container_of_a_pool_is_scraped_by_the_name_of_its_service():
    jobs = yaml.safe_load(rendered_files.render("compose", YARD)["ops/prometheus/prometheus.yml"])["scrape_configs"]

    assert [job["job_name"] for job in jobs] == ["web", "pool-vans", "pool-spare"]
    assert jobs[1]["dns_sd_configs"] == [{"names": ["pool-vans"], "type": "A", "port": 9191}]


def test_drift_is_shown_as_a_diff_from_disk_to_the_yard(tmp_path):
    rendered_files.write(tmp_path, {"ops/a.yml": "a: 1\n"})

    lines = rendered_files.differences(tmp_path, {"ops/a.yml": "a: 2\n", "ops/new.yml": "n: 1\n"})

    assert {"-a: 1", "+a: 2", "+n: 1"} <= set(lines)


GROUPS = yaml.safe_load((settings.BASE_DIR / "ops/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_says_its_cause_and_the_next_step(alert):
    severity = alert["labels"]["severity"]

    assert severity in ("page", "ticket") or "switchyard_queue_objective_seconds" in severity
    assert alert["labels"]["where"] in ("queue", "workers", "tasks")
    assert all(alert["annotations"][part] for part in ("summary", "cause", "next_step", "runbook"))


def test_no_rule_names_a_queue_or_a_pool_and_idle_slots_are_asked_for_their_reason_before_a_restart():
    expressions = " ".join(rule["expr"] for group in GROUPS for rule in group["rules"])
    [told] = [alert["annotations"]["next_step"] for alert in ALERTS if alert["alert"] == "SwitchyardNothingDispatches"]

    assert 'queue="' not in expressions and 'pool="' not in expressions
    # A person may have quieted the pool, which a restart would undo.
    assert told.startswith("`manage.py switchyard workers` says why: quieted")
    assert "restart" not in told


@pytest.mark.parametrize("command", CHECKS, ids=lambda command: command[0])
def test_workflows_are_well(command):
    done = subprocess.run([*command, *map(str, FILES)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_roll_of_a_host_project_checks_migrates_rolls_verifies_and_goes_back_where_that_fails():
    jobs = yaml.safe_load((ROOT / "ops/github/deploy.yml").read_text())["jobs"]
    steps = [step for step in jobs["roll"]["steps"] if "name" in step]

    assert [jobs[name].get("needs") for name in ("test", "build", "roll")] == [None, "test", "build"]
    names = ["Check the backlog with the new code", "Migrate", "Roll", "Verify", "Roll back"]
    assert ([step["name"] for step in steps][1:], steps[-1]["if"]) == (names, "failure()")
    # The wait for a job's success outlasts a job that failed, which has another condition.
    page = (ROOT / "docs/how-to/deploy-on-kubernetes.md").read_text()
    for script in (*(step.get("run", "") for step in steps), page):
        waits = [line for line in script.splitlines() if "kubectl" in line and " wait " in line]
        kinds = ["{.status.conditions[0].status}'=True" in line for line in waits]
        assert kinds == [True, False] * (len(waits) // 2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_of_a_workflow_is_a_shell_script_that_bash_reads(path):
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]

    errors = [subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True).stderr for script in scripts]
    assert [error for error in errors if error] == []


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``. It exits with 0 on a key that it does not know, but says so."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def written(folder: Path) -> list[str]:
    rendered_files.write(folder, render("systemd", YARD, values=HERE))
    return sorted(map(str, (folder / "ops/systemd").iterdir()))


def test_every_process_has_a_unit_that_its_target_starts():
    names = ["web", "scheduler", "history", *(f"pool-{pool.name}" for pool in YARD.pools)]
    [target] = (text for path, text in UNITS.items() if path.endswith("switchyard.target"))
    [wanted] = (line.removeprefix("Wants=").split() for line in target.splitlines() if line.startswith("Wants="))

    assert wanted == [f"switchyard-{name}.service" for name in names]
    assert {f"ops/systemd/{name}" for name in (*wanted, "switchyard.target")} == set(UNITS)


def test_pool_has_its_memory_and_is_killed_after_its_drain_alone():
    unit = dict(
        line.split("=", 1) for line in UNITS["ops/systemd/switchyard-pool-vans.service"].splitlines() if "=" in line
    )

    assert unit["ExecStart"].endswith("manage.py switchyard runpool vans --metrics-port 9191")
    assert int(unit["TimeoutStopSec"]) > GRACE_S + KILL_AFTER_GRACE_S
    assert (unit["KillMode"], unit["RestartPreventExitStatus"]) == ("mixed", "78")
    assert unit["MemoryMax"] == f"{rendered_files.memory_mib(VANS)}M"


def test_systemd_has_nothing_to_say_of_any_unit_and_units_may_do_little(tmp_path):
    paths = written(tmp_path)
    units = [path for path in paths if path.endswith(".service")]

    verified = analyze("verify", *paths)
    exposed = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", *units)

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    assert exposed.returncode == 0, exposed.stdout


YARD_ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, warnings: io.StringIO | None = None) -> str:
    output = io.StringIO()
    call_command("switchyard", "topology", *arguments, stdout=output, stderr=warnings)
    return output.getvalue()


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, base_dir=tmp_path)
    return tmp_path


def test_table_shows_every_queue_and_every_pool():
    lines = run().splitlines()

    assert [line.split()[0] for line in lines if line][2:] != []
    for name in [queue.name for queue in settings.SWITCHYARD.topology.queues] + [
        pool.name for pool in settings.SWITCHYARD.topology.pools
    ]:
        assert any(line.startswith(f"{name} ") for line in lines), name


def test_json_tells_what_a_queue_promises_and_who_serves_it():
    queues = {queue["name"]: queue for queue in json.loads(run("--json"))["queues"]}

    webhook = queues["webhook"]
    assert (webhook["objective_ms"], webhook["pools"]) == (1_000, ["webhook"])
    assert (webhook["retry_pools"], webhook["dead_list"]) == (["webhook-retry"], "webhook-dead")
    assert webhook["calls"] == "customers' endpoints"
    assert (webhook["retry"]["max_retries"], webhook["retry"]["own_backoff"]) == (5, False)
    assert webhook["retry"]["delays_ms"] == [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000]
    assert webhook["retry"]["span_ms"] == [13_652_500, 27_305_000]


@pytest.mark.parametrize("target", list(BESIDE))
def test_what_rendered_files_need_beside_them_is_named_until_it_is_there(target, folder):
    first, second = io.StringIO(), io.StringIO()

    run("render", target, warnings=first)
    for path in BESIDE[target]:
        (folder / path).mkdir(parents=True)
        assert (YARD_ROOT / path).exists()
    run("render", target, warnings=second)

    assert [path for path in BESIDE[target] if path not in first.getvalue()] == []
    assert second.getvalue() == ""


def test_check_passes_on_fresh_files_and_fails_with_a_diff_on_changed_ones(folder):
    assert "ops/compose.yaml" in run("render", "compose")
    assert run("render", "compose", "--check") == ""

    with (folder / "ops/compose.yaml").open("a") as file:
        file.write("# by hand\n")

    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose"):
        run("render", "compose", "--check")


def test_pool_of_cores_shows_what_it_stands_for_and_containers_show_their_memory():
    pools = {pool["name"]: pool for pool in json.loads(run("--json"))["pools"]}
    [row] = (line for line in run().splitlines() if line.startswith("slow ") and "processes" in line)

    assert f"cores ({pools['slow']['processes']} here) x 1" in row
    assert f"{pools['slow']['memory_mib']:,}M" in row
    assert [pool["name"] for pool in pools.values() if pool["per_core"]] == ["slow"]
    assert "memory at most: " in run() and " MiB in all; this machine has " in run()


@pytest.mark.usefixtures("folder")
def test_number_of_cores_is_repeated_in_the_command_that_mends_the_files():
    run("render", "compose", "--cores", "8")

    assert run("render", "compose", "--cores", "8", "--check") == ""
    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose$"):
        run("render", "compose", "--check")
    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose --cores 4$"):
        run("render", "compose", "--cores", "4", "--check")
    with pytest.raises(CommandError, match="--cores: '0' is not a number from 1"):
        run("render", "compose", "--cores", "0")


PROBE = settings.BASE_DIR / "ops/probe.py"
DASHBOARD = json.loads((settings.BASE_DIR / "ops/grafana/dashboard.json").read_text())


class Handler(Answering):
    """Answers 200 to the right host and token, and 503 to everything else."""

    def do_GET(self) -> None:
        right = self.headers["Host"] == "yard.example.com" and self.headers["Authorization"] == "Bearer word"
        self.answer(200 if right and self.path == "/healthz" else 503)


@pytest.fixture
def port() -> Iterator[int]:
    with answers_of(Handler) as port:
        yield port


def probe(port: int, path: str, *, token: str = "word") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DJANGO_ALLOWED_HOSTS": ".yard.example.com other.example.com",
        "SWITCHYARD_METRICS_TOKEN": token,
    }
    command = [sys.executable, str(PROBE), str(port), path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_answer_200_is_healthy_any_other_and_none_are_unhealthy_and_told_apart(port):
    assert probe(port, "/healthz").returncode == 0

    other, none = probe(port, "/metrics"), probe(1, "/healthz")

    assert (other.returncode, none.returncode) == (1, 1)
    assert "answered 503" in other.stderr and "did not answer" in none.stderr


def test_token_may_come_from_a_file(port, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("word\n")
    monkeypatch.setenv("SWITCHYARD_METRICS_TOKEN_FILE", str(tmp_path / "token"))

    assert probe(port, "/healthz", token="").returncode == 0


@pytest.fixture(scope="module")
def dashboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard_check", settings.BASE_DIR / "ops/grafana/check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dashboard_has_nothing_wrong_no_variable_of_grafana_is_left_and_queues_tasks_and_workers_are_shown(dashboard):
    assert list(dashboard.problems(copy.deepcopy(DASHBOARD))) == []
    assert not [query for query in dashboard.expressions(DASHBOARD) if "$" in query]

    wanted = {
        *("queue_depth", "queue_oldest_age_seconds", "message_wait_seconds_bucket", "messages_total", "retries_total"),
        *("message_duration_seconds_bucket", "worker_slots_busy", "worker_memory_bytes", "worker_restarts_total"),
        "dead_letters",
    }
    shown = {name for query in dashboard.expressions(DASHBOARD) for name in re.findall(r"switchyard_(\w+)", query)}

    assert wanted - shown == set()
