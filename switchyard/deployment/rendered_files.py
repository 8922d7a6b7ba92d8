"""Rendering of the deployment files, and their comparison with the files on disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from switchyard.broker.redis import acl
from switchyard.broker.topology import Yard
from switchyard.conf import switchyard_settings
from switchyard.deployment import compose, prometheus
from switchyard.deployment.sizes import RENDERED_CORES
from switchyard.setting_values import RABBITMQ_SCHEMES

COMPOSE_FILE = "ops/compose.yaml"
HEADER = "# Rendered by `manage.py switchyard topology render {target}` from the topology; do not edit.\n"


class _PlainDumper(yaml.SafeDumper):
    """YAML dumper without anchors: shared parts are written in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _PlainDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_PlainDumper.add_representer(str, _text)


def render(target: str, yard: Yard, cores: int = RENDERED_CORES) -> dict[str, str]:
    """Return the text of every file of a target, by its path under the repository's root.

    Args:
        target: ``compose``, or ``acl`` for the users of the broker's server.
        cores: Processors of the machine: what ``processes="cores"`` stands for.

    Raises:
        KeyError: there is no such target.
    """
    if target == "acl":
        scheme = switchyard_settings().broker_url.partition("://")[0].lower()
        return {"ops/users.acl": acl.render(beside_rabbitmq=scheme in RABBITMQ_SCHEMES)}
    return {path: _document(target, content) for path, content in _TARGETS[target](yard.with_cores(cores)).items()}


def differences(root: Path, rendered: Mapping[str, str]) -> list[str]:
    """Return a unified diff from the files below ``root`` to what was rendered; empty when they agree."""
    lines: list[str] = []
    for path, text in rendered.items():
        file = root / path
        found = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines += difflib.unified_diff(
            found.splitlines(), text.splitlines(), f"{path} (on disk)", f"{path} (rendered)", lineterm=""
        )
    return lines


def write(root: Path, rendered: Mapping[str, str]) -> list[str]:
    """Write the files that differ below ``root`` and return the paths written."""
    written = []
    for path, text in rendered.items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _document(target: str, content: Mapping[str, Any]) -> str:
    body = yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=1_000)
    return HEADER.format(target=target) + body


def _compose(yard: Yard) -> dict[str, dict[str, Any]]:
    return {
        COMPOSE_FILE: compose.project(yard),
        "ops/prometheus/rules.yml": prometheus.rules(yard),
        "ops/prometheus/prometheus.yml": prometheus.scrape_config(yard),
    }


_TARGETS = {"compose": _compose}
TARGETS = (*_TARGETS, "acl")
