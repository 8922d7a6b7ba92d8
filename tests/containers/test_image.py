"""The image: small, without a compiler, without rights, with a bill of what is in it, and its variants."""

from __future__ import annotations

import json

import pytest

from tests.containers.engine import IMAGE, Engine

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

MOST_BYTES = 450_000_000
LOOK = "id -u; touch x; touch /srv/media/x; for name in cc gcc g++ make pip; do command -v $name; done; true"


def test_image_is_small_and_runs_without_rights_and_without_a_compiler(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    size = engine.size_bytes("one")
    with capsys.disabled():
        print(f"image: {size / 1e6:.0f} MB")

    assert size <= MOST_BYTES
    found = engine.run("look", "one", ["--rm"], ["sh", "-c", LOOK], wait=True)
    assert found.split() == ["10001"]


def test_image_without_its_secrets_refuses_to_start_and_names_the_first(engine: Engine) -> None:
    done = engine.podman("run", "--rm", "--network", "host", "--no-healthcheck", "--ulimit", "nofile=10000:20000",
                         "--ulimit", "nproc=4096:4096", f"{IMAGE}:one", check=False)  # fmt: skip

    assert done.returncode == 78
    assert "DJANGO_SECRET_KEY: is not set" in done.stderr + done.stdout


def test_bill_of_materials_names_every_package_with_its_licence(engine: Engine) -> None:
    bill = json.loads(engine.run("bill", "one", ["--rm"], ["cat", "sbom.json"], wait=True))

    components = {component["purl"].partition("@")[0]: component for component in bill["components"]}
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {"pkg:pypi/django", "pkg:pypi/dramatiq", "pkg:pypi/boto3", "pkg:deb/debian/libc6"} <= components.keys()
    assert [name for name, found in components.items() if name.startswith("pkg:pypi/") and not found["licenses"]] == []


def test_variant_for_rabbitmq_has_its_client_and_the_plain_one_has_none(engine: Engine) -> None:
    engine.build("rabbit", "s3 rabbitmq")

    assert (
        engine.run("with", "rabbit", ["--rm"], ["python", "-c", "import pika, boto3; print('both')"], wait=True)
        == "both\n"
    )
    command = ["python", "-c", "import importlib.util; print(importlib.util.find_spec('pika'))"]
    assert engine.run("without", "one", ["--rm"], command, wait=True) == "None\n"
