"""Kubernetes' files: valid to the letter, an error in any of them is found, and they fit the yard and the overlay."""

import copy
import re
from dataclasses import replace
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from django.conf import settings

from switchyard.broker.topology import Yard
from switchyard.database import planned_connections
from switchyard.deployment.rendered_files import MOST_REPLICAS, memory_mib, render, requests
from switchyard.serving import server
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.unit.deployment.schemas import SCHEMAS
from tests.unit.deployment.yards import SPARE, VANS, YARD

# The oldest and the newest that are said to work.
VERSIONS = ("1.31.0", kubernetes_validate.latest_version())
ROOT = settings.BASE_DIR
OVERLAYS = ("ops/kubernetes/production", "ops/kubernetes/production/jobs")
Document = dict[str, Any]


def problems(document: Document) -> list[str]:
    """Return what is wrong with a document: a field that its kind does not have, is missing, or of another type."""
    schema = SCHEMAS.get((document.get("apiVersion", ""), document.get("kind", "")))
    try:
        if schema is not None:
            jsonschema.validate(document, schema)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [error.message]
    return []


def documents_of(text: str) -> list[Document]:
    return [found for found in yaml.safe_load_all(text) if found]


FILES = render("kubernetes", settings.SWITCHYARD.topology)
RENDERED = [(path, document) for path, text in FILES.items() for document in documents_of(text)]
OWN = [
    (path, document)
    for folder in OVERLAYS
    for path in [f"{folder}/kustomization.yaml"]
    for document in documents_of((ROOT / path).read_text())
]
POOLS = "ops/kubernetes/base/pools.yaml"
SMALL = {
    document["metadata"]["name"]: document
    for document in documents_of(render("kubernetes", YARD)[POOLS])
    if document["kind"] == "Deployment"
}


def title(document: Document) -> str:
    return f"{document.get('kind', 'values')}-{document.get('metadata', {}).get('name', '')}"


@pytest.mark.parametrize(
    ("path", "document"), [*RENDERED, *OWN], ids=lambda each: title(each) if isinstance(each, dict) else ""
)
def test_document_is_valid_and_a_field_that_it_cannot_have_is_found(path, document):
    wrong = copy.deepcopy(document)
    wrong.get("spec", wrong)["replica"] = 1

    assert problems(document) == [], path
    assert problems(wrong), path


def test_every_pool_is_a_deployment_that_runs_it_and_outlives_its_drain():
    for pool in YARD.pools:
        spec = SMALL[f"pool-{pool.name}"]["spec"]["template"]["spec"]
        [container] = spec["containers"]

        assert container["command"][3:5] == ["runpool", pool.name]
        assert spec["terminationGracePeriodSeconds"] > GRACE_S + KILL_AFTER_GRACE_S
        assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "metrics"}
        assert container["resources"]["limits"]["memory"] == f"{memory_mib(pool)}Mi"


def test_no_process_of_the_yard_is_the_first_of_its_namespace():
    """The kernel ignores a signal that such a process does not handle yet, and nobody but it can reap an orphan."""
    templates = [found["spec"]["template"]["spec"] for _, found in RENDERED if "template" in found.get("spec", {})]

    assert len(templates) > 10
    assert all(template["shareProcessNamespace"] for template in templates)


def test_pool_that_computes_gets_whole_processors_and_others_a_part_of_one():
    assert requests(VANS) == ("3", memory_mib(VANS))
    assert requests(SPARE) == ("250m", 480)
    resources = SMALL["pool-vans"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]


def test_web_outlives_its_drain_and_the_time_until_no_request_comes():
    [web] = (found["spec"]["template"]["spec"] for _, found in RENDERED if title(found) == "Deployment-web")
    until_none_s = int(web["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    assert web["terminationGracePeriodSeconds"] > server.GRACE_S + until_none_s


def test_name_that_no_host_may_have_is_written_as_one():
    rendered = render("kubernetes", Yard(YARD.queues, (replace(VANS, name="Big_Vans.2"), SPARE)))[POOLS]
    [found] = (each for each in documents_of(rendered) if title(each) == "Deployment-pool-big-vans-2")

    assert found["spec"]["template"]["spec"]["containers"][0]["command"][4] == "Big_Vans.2"


def test_both_autoscalers_ask_for_the_same_number_by_pod():
    scaled, autoscaled = (
        {title(found).removeprefix(f"{kind}-"): found["spec"] for _, found in RENDERED if found.get("kind") == kind}
        for kind in ("ScaledObject", "HorizontalPodAutoscaler")
    )

    for pool in settings.SWITCHYARD.topology.with_cores(2).pools:
        by_hpa, by_keda = autoscaled[f"pool-{pool.name}"], scaled[f"pool-{pool.name}"]
        assert by_hpa["metrics"][0]["external"]["target"]["averageValue"] == str(pool.total_slots)
        assert by_keda["triggers"][0]["metadata"]["threshold"] == str(pool.total_slots)
        assert by_keda["maxReplicaCount"] == by_hpa["maxReplicas"] == MOST_REPLICAS


def test_every_secret_and_setting_that_pods_ask_for_is_named_in_the_how_to():
    page = (ROOT / "docs/how-to/deploy-on-kubernetes.md").read_text()
    asked = r"(?:secretKeyRef: \{name: switchyard, |\{)key: ([a-z-]+)(?=\}|, path)"
    keys = set(re.findall(asked, "".join(FILES.values())))

    assert len(keys) == 7
    assert {key for key in keys if f"--from-literal={key}=" not in page} == set()


def base_of(folder: str) -> list[Document]:
    """Return what an overlay builds upon, by the lists of its kustomizations."""
    [kustomization] = documents_of((ROOT / folder / "kustomization.yaml").read_text())
    found = []
    for name in kustomization["resources"]:
        path = (ROOT / folder / name).resolve()
        if path.is_dir():
            found += base_of(str(path.relative_to(ROOT)))
        else:
            found += documents_of(path.read_text())
    return found


def patched(document: Document, patch: str) -> Document:
    """Apply JSON patches that add or replace, as kustomize does: the parent must be there, and what is replaced."""
    changed = copy.deepcopy(document)
    for step in yaml.safe_load(patch):
        *parents, last = step["path"].strip("/").split("/")
        node: Any = changed
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key = int(last) if isinstance(node, list) else last
        if step["op"] == "replace":
            node[key]  # raises where there is nothing to replace
        node[key] = step["value"]
    return changed


def is_met(document: Document, target: dict[str, str]) -> bool:
    meta = document.get("metadata", {})
    label, _, value = target.get("labelSelector", "").partition("=")
    return (
        document["kind"] == target["kind"]
        and target.get("name", meta.get("name")) == meta.get("name")
        and (not label or meta.get("labels", {}).get(label) == value)
    )


def test_patches_of_the_overlay_meet_what_they_are_meant_for_and_leave_it_valid():
    [overlay] = documents_of((ROOT / OVERLAYS[0] / "kustomization.yaml").read_text())
    base, patches = base_of(OVERLAYS[0]), overlay["patches"]

    met = [(found, patch["patch"]) for patch in patches for found in base if is_met(found, patch["target"])]

    pools = [f"Deployment-pool-{pool.name}" for pool in settings.SWITCHYARD.topology.pools]
    assert [title(document) for document, _ in met] == ["Ingress-web", *pools]
    assert [wrong for document, patch in met for wrong in problems(patched(document, patch))] == []


@pytest.mark.parametrize("folder", OVERLAYS)
def test_image_of_the_overlay_is_that_of_the_containers(folder):
    [overlay] = documents_of((ROOT / folder / "kustomization.yaml").read_text())
    pods = [found["spec"]["template"]["spec"] for found in base_of(folder) if "template" in found.get("spec", {})]

    assert {container["image"] for pod in pods for container in pod["containers"]} == {"switchyard"}
    assert [image["name"] for image in overlay["images"]] == ["switchyard"]


def test_surge_of_every_pool_is_said_with_its_connections():
    text = FILES[POOLS]
    said = [int(count) for count in re.findall(r"opens up to (\d+) database connections more", text)]

    yard = settings.SWITCHYARD.topology.with_cores(2)
    assert said == [pool.most_connections for pool in yard.pools]
    assert sum(said) < planned_connections(yard)
