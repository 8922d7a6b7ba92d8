"""The yard's own containers: the web, one for each pool, the scheduler, and the migration that comes before them."""

from __future__ import annotations

from typing import Any

from switchyard.broker.topology import Pool, Yard
from switchyard.deployment import sizes
from switchyard.deployment.containers import hardened, healthcheck, required
from switchyard.workers.supervisor.supervisor import GRACE_S

WEB_PORT = 8000
METRICS_PORT = 9191
# A pool drains for its grace period and then requeues running messages; the kill must come later.
STOP_GRACE_S = int(GRACE_S) + 15
# Where a TLS proxy's requests come from on Docker's default networks; X-Forwarded-Proto is trusted from there only.
PROXY_NETWORKS = "127.0.0.1,172.16.0.0/12,192.168.0.0/16"


def services(yard: Yard) -> dict[str, Any]:
    """Return every container that runs the project's own code."""
    pools = {f"pool-{pool.name}": _pool(pool) for pool in yard.pools}
    return {"migrate": _migrate(), "web": _web(), "scheduler": _scheduler(), "history": _history(), **pools}


def _project(command: list[str], **environment: str) -> dict[str, Any]:
    return {
        "image": "switchyard:${SWITCHYARD_RELEASE:-local}",
        "build": {
            "context": "..",
            "dockerfile": "ops/Dockerfile",
            "args": {"SWITCHYARD_RELEASE": "${SWITCHYARD_RELEASE:-local}"},
        },
        "command": command,
        "init": True,
        "environment": _environment() | environment,
        "networks": ["yard", "outside"],
    }


def _environment() -> dict[str, str]:
    return {
        "DJANGO_DEBUG": "0",
        "DJANGO_SECRET_KEY": required("DJANGO_SECRET_KEY"),
        # Prometheus calls the web by its name on the network.
        "DJANGO_ALLOWED_HOSTS": required("DJANGO_ALLOWED_HOSTS") + " web",
        "DATABASE_URL": f"postgres://switchyard:{required('POSTGRES_PASSWORD')}@postgres:5432/switchyard",
        "SWITCHYARD_BROKER_URL": f"redis://default:{required('VALKEY_PASSWORD')}@valkey:6379/0",
        # The volume of web and pools; with s3:// they share a bucket, and the volume stays empty.
        "SWITCHYARD_STORAGE_URL": "${SWITCHYARD_STORAGE_URL:-file:///srv/media}",
        "SWITCHYARD_RESULTS_URL": "${SWITCHYARD_RESULTS_URL:-}",
        "AWS_ACCESS_KEY_ID": "${AWS_ACCESS_KEY_ID:-}",
        "AWS_SECRET_ACCESS_KEY": "${AWS_SECRET_ACCESS_KEY:-}",
        "SWITCHYARD_RETENTION_DAYS": "${SWITCHYARD_RETENTION_DAYS:-}",
        "SWITCHYARD_STATE_DIR": "/tmp/switchyard",  # noqa: S108 - in the container: memory, its own
        "SWITCHYARD_SMTP_URL": required("SWITCHYARD_SMTP_URL"),
        "SWITCHYARD_PAYMENT_SECRET": required("SWITCHYARD_PAYMENT_SECRET"),
        "SWITCHYARD_METRICS_TOKEN": required("SWITCHYARD_METRICS_TOKEN"),
        "SWITCHYARD_PUBLIC_URL": required("SWITCHYARD_PUBLIC_URL"),
        "SWITCHYARD_ALERT_URLS": "${SWITCHYARD_ALERT_URLS:-}",
        "SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": "${SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES:-}",
        "SWITCHYARD_RELEASE": "${SWITCHYARD_RELEASE:-local}",
        "SWITCHYARD_LOG_FORMAT": "json",
    }


def _after_migration() -> dict[str, Any]:
    return {
        "migrate": {"condition": "service_completed_successfully"},
        "valkey": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }


def _probe(port: int, path: str) -> dict[str, Any]:
    return healthcheck("CMD", "python", "ops/probe.py", str(port), path)


def _migrate() -> dict[str, Any]:
    return {
        **_project(["python", "manage.py", "migrate", "--noinput"]),
        "depends_on": {"valkey": {"condition": "service_healthy"}, "postgres": {"condition": "service_healthy"}},
        **hardened(512, cpus=1),
        "restart": "on-failure:3",
    }


def _web() -> dict[str, Any]:
    command = ["python", "manage.py", "runweb", "--host", "0.0.0.0", "--port", str(WEB_PORT)]  # noqa: S104
    return {
        **_project(
            command,
            FORWARDED_ALLOW_IPS=f"${{FORWARDED_ALLOW_IPS:-{PROXY_NETWORKS}}}",
            DJANGO_SSL_REDIRECT="${DJANGO_SSL_REDIRECT:-1}",
            DJANGO_HSTS_S="${DJANGO_HSTS_S:-3600}",
        ),
        "ports": [f"127.0.0.1:{WEB_PORT}:{WEB_PORT}"],
        "volumes": ["media:/srv/media"],
        "depends_on": _after_migration(),
        "healthcheck": _probe(WEB_PORT, "/healthz"),
        "stop_grace_period": "30s",
        **hardened(sizes.WEB_MIB, cpus=1),
    }


def _scheduler() -> dict[str, Any]:
    return {
        **_project(["python", "manage.py", "runscheduler"]),
        "depends_on": _after_migration(),
        "healthcheck": {"disable": True},
        "stop_grace_period": "15s",
        **hardened(sizes.SCHEDULER_MIB, cpus=0.5),
    }


def _history() -> dict[str, Any]:
    # The command sets nice 19 itself.
    return {
        **_project(["python", "manage.py", "runhistory"]),
        "depends_on": _after_migration(),
        "healthcheck": {"disable": True},
        "stop_grace_period": "15s",
        **hardened(sizes.HISTORY_MIB, cpus=0.5),
    }


def _pool(pool: Pool) -> dict[str, Any]:
    # The port is not published: it is reachable from the yard's network only.
    metrics = ["--metrics-host", "0.0.0.0", "--metrics-port", str(METRICS_PORT)]  # noqa: S104
    return {
        **_project(["python", "manage.py", "runpool", pool.name, *metrics]),
        "volumes": ["media:/srv/media"],
        "depends_on": _after_migration(),
        "healthcheck": _probe(METRICS_PORT, "/health"),
        "stop_grace_period": f"{STOP_GRACE_S}s",
        **hardened(sizes.memory_mib(pool), cpus=sizes.cpus(pool), pids=sizes.pids(pool), tmp_mib=sizes.TMP_MIB),
    }
