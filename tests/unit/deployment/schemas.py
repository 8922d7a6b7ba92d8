"""Schemas of what Kubernetes itself does not know, as far as rendered files use it: an unknown field is an error.

From the definitions of KEDA 2.19 and the Prometheus Operator 0.85, and from kustomize 5.
"""

from typing import Any


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields and no other."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


TEXT = {"type": "string", "minLength": 1}
WHOLE = {"type": "integer", "minimum": 0}
DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}


def listed(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


META = closed("name", name=TEXT, namespace=TEXT, labels=LABELS)
SCALING = closed(
    "policies",
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3_600},
    policies=listed(
        closed("type value periodSeconds", type={"enum": ["Percent", "Pods"]}, value=WHOLE, periodSeconds=WHOLE)
    ),
)
TRIGGER = closed(
    "type metadata",
    type={"const": "prometheus"},
    metricType={"enum": ["AverageValue", "Value"]},
    metadata=closed("serverAddress query threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT),
)
ENDPOINT = closed(
    "port",
    port=TEXT,
    path=TEXT,
    interval=DURATION,
    scrapeTimeout=DURATION,
    authorization=closed("credentials", credentials=closed("name key", name=TEXT, key=TEXT)),
    relabelings=listed(
        closed(
            "targetLabel action", sourceLabels=listed(TEXT), targetLabel=TEXT, replacement=TEXT,
            action={"enum": ["replace"]},
        )
    ),
)  # fmt: skip
PATCH = closed("target patch", target=closed("kind", kind=TEXT, name=TEXT, labelSelector=TEXT), patch=TEXT)
GENERATED = closed("name literals", name=TEXT, behavior={"enum": ["create", "merge", "replace"]}, literals=listed(TEXT))


def manifest(required: str, **spec: Any) -> dict[str, Any]:
    parts = {"apiVersion": TEXT, "kind": TEXT, "metadata": META, "spec": closed(required, **spec)}
    return closed(" ".join(parts), **parts)


# By apiVersion and kind.
SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): manifest(
        "scaleTargetRef triggers",
        scaleTargetRef=closed("name", kind=TEXT, name=TEXT),
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        pollingInterval=WHOLE,
        fallback=closed(
            "failureThreshold replicas",
            failureThreshold=WHOLE,
            replicas=WHOLE,
            behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
        ),
        advanced=closed(horizontalPodAutoscalerConfig=closed(behavior=closed(scaleUp=SCALING, scaleDown=SCALING))),
        triggers=listed(TRIGGER),
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): manifest(
        "selector podMetricsEndpoints",
        selector=closed("matchLabels", matchLabels=LABELS),
        podMetricsEndpoints=listed(ENDPOINT),
    ),
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): closed(
        "apiVersion kind resources",
        apiVersion=TEXT,
        kind=TEXT,
        namespace=TEXT,
        resources=listed(TEXT),
        images=listed(closed("name", name=TEXT, newName=TEXT, newTag=TEXT, digest=TEXT)),
        configMapGenerator=listed(GENERATED),
        generatorOptions=closed(disableNameSuffixHash={"type": "boolean"}),
        patches=listed(PATCH),
    ),
    # Values of the chart prometheus-adapter have neither.
    ("", ""): closed(
        "rules",
        rules=closed(
            "default external",
            default={"type": "boolean"},
            external=listed(
                closed(
                    "seriesQuery resources name metricsQuery",
                    seriesQuery=TEXT,
                    resources=closed("namespaced", namespaced={"type": "boolean"}),
                    name=closed("as", **{"as": TEXT}),
                    metricsQuery=TEXT,
                )
            ),
        ),
    ),
}
