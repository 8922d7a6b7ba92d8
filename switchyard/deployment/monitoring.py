"""Containers of Prometheus, which scrapes every process, and of Grafana."""

from __future__ import annotations

from typing import Any

from switchyard.deployment.containers import hardened, healthcheck, required

# Prometheus reads its credentials from files only; this file is in memory and private to the server.
PROMETHEUS_START = """\
umask 077
printf '%s' "$$SWITCHYARD_METRICS_TOKEN" > /tmp/metrics_token
exec /bin/prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus \
--storage.tsdb.retention.time=15d
"""


def services() -> dict[str, Any]:
    """Return the containers. Grafana listens on loopback only: put your own proxy in front of it."""
    return {"prometheus": _prometheus(), "grafana": _grafana()}


def _prometheus() -> dict[str, Any]:
    return {
        "image": "prom/prometheus:v3.5.0",
        "user": "65534:65534",
        "entrypoint": ["/bin/sh", "-c"],
        "command": [PROMETHEUS_START],
        "environment": {"SWITCHYARD_METRICS_TOKEN": required("SWITCHYARD_METRICS_TOKEN")},
        "volumes": [
            "./prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro",
            "./prometheus/rules.yml:/etc/prometheus/rules.yml:ro",
            "prometheus:/prometheus",
        ],
        "networks": ["yard"],
        "healthcheck": healthcheck("CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9090/-/healthy"),
        **hardened(1024, cpus=1),
    }


def _grafana() -> dict[str, Any]:
    return {
        "image": "grafana/grafana:12.1.1",
        "user": "472:0",
        "environment": {
            "GF_SECURITY_ADMIN_PASSWORD": required("GRAFANA_PASSWORD"),
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_LOG_MODE": "console",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/grafana/dashboards/dashboard.json",
        },
        "volumes": [
            "./grafana/provisioning:/etc/grafana/provisioning:ro",
            "./grafana/dashboard.json:/etc/grafana/dashboards/dashboard.json:ro",
            "grafana:/var/lib/grafana",
        ],
        "networks": ["yard", "outside"],
        "ports": ["127.0.0.1:3000:3000"],
        "depends_on": {"prometheus": {"condition": "service_healthy"}},
        "healthcheck": healthcheck("CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:3000/api/health"),
        **hardened(512, cpus=1),
    }
