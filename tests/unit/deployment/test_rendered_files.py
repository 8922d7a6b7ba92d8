"""Rendered files: the same every time, and compared with what is on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from django.conf import settings

from switchyard.deployment import rendered_files
from tests.unit.deployment.yards import YARD


def test_files_on_disk_are_what_the_yard_renders() -> None:
    rendered = rendered_files.render("compose", settings.SWITCHYARD.topology)

    assert rendered_files.differences(settings.BASE_DIR, rendered) == []


def test_every_file_says_where_it_comes_from_and_is_yaml() -> None:
    for text in rendered_files.render("compose", YARD).values():
        assert text.startswith("# Rendered by `manage.py switchyard topology render compose`")
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
def test_every_process_starts_by_the_manage_py_of_any_project(target: str) -> None:
    """Only this repository's own takes a command of ours without the word ``switchyard`` before it."""
    lines = "\n".join(rendered_files.render(target, YARD).values()).replace(",", "").replace('"', "").splitlines()
    started = [words for line in lines if not line.startswith("#") and (words := re.findall(r"manage\.py (\w+)", line))]

    assert len(started) > 3
    assert {word for words in started for word in words} <= {"switchyard", "migrate"}


def test_every_container_of_a_pool_is_scraped_by_the_name_of_its_service() -> None:
    jobs = yaml.safe_load(rendered_files.render("compose", YARD)["ops/prometheus/prometheus.yml"])["scrape_configs"]

    assert [job["job_name"] for job in jobs] == ["web", "pool-vans", "pool-spare"]
    assert jobs[1]["dns_sd_configs"] == [{"names": ["pool-vans"], "type": "A", "port": 9191}]


def test_drift_is_shown_as_a_diff_from_disk_to_the_yard(tmp_path: Path) -> None:
    rendered_files.write(tmp_path, {"ops/a.yml": "a: 1\n"})

    lines = rendered_files.differences(tmp_path, {"ops/a.yml": "a: 2\n", "ops/new.yml": "n: 1\n"})

    assert "-a: 1" in lines
    assert "+a: 2" in lines
    assert "+n: 1" in lines
