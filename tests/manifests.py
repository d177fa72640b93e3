"""The Kubernetes manifests as Kustomize builds them, and their schemas. Without Kustomize a test is skipped."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "kubernetes"
OVERLAYS = tuple(sorted(path.name for path in (KUBERNETES / "overlays").iterdir()))
SCHEMAS = {path.stem: json.loads(path.read_text("utf-8")) for path in Path(__file__).parent.glob("schemas/[A-Z]*.json")}
VERSIONS = ("1.31", "1.37")  # the oldest that docs/kubernetes.md names, and the newest known

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """The objects that `kubectl apply -k` would send."""
    return list(yaml.load_all(_kustomize(folder), yaml.CSafeLoader))


@cache
def _kustomize(folder: Path) -> str:
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomize() -> list[str]:
    """Where CI is set, a missing program fails the test."""
    commands = (["kustomize", "build"], ["kubectl", "kustomize"])
    if installed := [command for command in commands if shutil.which(command[0])]:
        return installed[0]
    end = pytest.fail if os.environ.get("CI") else pytest.skip
    return list(end("needs Kustomize: neither kustomize nor kubectl is installed"))


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name)
    return found


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def schema_errors(manifest: Manifest) -> Iterator[str]:
    """Unknown fields, wrong types and missing fields."""
    if schema := SCHEMAS.get(manifest["kind"]):
        for error in Draft202012Validator(schema).iter_errors(manifest):
            yield f"{title(manifest)}: {error.json_path}: {error.message}"
    else:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"{title(manifest)}, Kubernetes {version}: {error}"


def pod_templates(manifests: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield title(manifest), manifest["spec"]["template"]


def dangling_selectors(manifests: list[Manifest]) -> Iterator[str]:
    """Selectors of Services, budgets, network policies and monitors that select no pod of the same build."""
    labels = [template["metadata"]["labels"] for _, template in pod_templates(manifests)]
    for manifest in manifests:
        for wanted in (each for selector in _selectors(manifest) for each in _alternatives(selector)):
            if not any(wanted.items() <= each.items() for each in labels):
                yield f"{title(manifest)}: {wanted}"


def _selectors(manifest: Manifest) -> Iterator[Manifest]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif manifest["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        yield spec["selector"]
    elif manifest["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
        peers = (peer for rule in spec.get("ingress", []) for peer in rule["from"])
        yield from (peer["podSelector"] for peer in peers if "namespaceSelector" not in peer)


def _alternatives(selector: Manifest) -> Iterator[dict[str, str]]:
    """The label sets that a selector accepts: each value in a list must be that of a pod."""
    labels = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    yield from ({**labels, each["key"]: value} for each in expressions for value in each["values"])
    if not expressions:
        yield labels


def dangling_references(manifests: list[Manifest]) -> set[str]:
    """ConfigMaps, Secrets and ServiceAccounts that pods use and the build does not contain."""
    present = {title(manifest) for manifest in manifests}
    return {each for _, template in pod_templates(manifests) for each in _references(template["spec"])} - present


def _references(spec: Manifest) -> Iterator[str]:
    volumes, containers = spec.get("volumes", []), spec["containers"]
    sources = [source for container in containers for source in container.get("envFrom", [])]
    variables = [variable.get("valueFrom", {}) for container in containers for variable in container.get("env", [])]
    if "serviceAccountName" in spec:
        yield f"ServiceAccount {spec['serviceAccountName']}"
    yield from (f"Secret {each['secret']['secretName']}" for each in volumes if "secret" in each)
    yield from (f"ConfigMap {each['configMap']['name']}" for each in volumes if "configMap" in each)
    yield from (f"ConfigMap {each['configMapRef']['name']}" for each in sources if "configMapRef" in each)
    yield from (f"Secret {each['secretRef']['name']}" for each in sources if "secretRef" in each)
    yield from (f"Secret {each['secretKeyRef']['name']}" for each in variables if "secretKeyRef" in each)


def unsafe_settings(template: Manifest) -> Iterator[str]:
    """What the Pod Security Standard `restricted` forbids, and what every pod here does without."""
    spec = template["spec"]
    pod = spec.get("securityContext", {})
    wanted = {
        "runAsNonRoot": pod.get("runAsNonRoot") is True,
        "runAsUser": pod.get("runAsUser", 0) > 0,
        "seccompProfile": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
        "automountServiceAccountToken": spec.get("automountServiceAccountToken") is False,
        "enableServiceLinks": spec.get("enableServiceLinks") is False,
        "volumes": all({"secret", "configMap", "emptyDir"} & set(volume) for volume in spec.get("volumes", [])),
    }
    yield from (name for name, met in wanted.items() if not met)
    for container in spec["containers"]:
        yield from (f"{container['name']}: {name}" for name in _unsafe_container(container))


def _unsafe_container(container: Manifest) -> Iterator[str]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    wanted = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "resources": "memory" in resources.get("limits", {})
        and {"cpu", "memory"} == set(resources.get("requests", {})),
        "image": ":" in container["image"] and not container["image"].endswith(":latest"),
    }
    return (name for name, met in wanted.items() if not met)


def unknown_trigger_keys(scaled_object: Manifest) -> set[str]:
    """Keys of the trigger's metadata that KEDA does not document: it ignores them silently."""
    return {key for trigger in scaled_object["spec"]["triggers"] for key in trigger["metadata"]} - _trigger_keys()


def unknown_login_parameters(authentication: Manifest) -> set[str]:
    sources = (authentication["spec"].get(name, []) for name in ("env", "secretTargetRef"))
    used = {each["parameter"] for source in sources for each in source}
    return used - {each["name"] for each in _parameters() if each.get("triggerAuthenticationVariableReadable")}


def _trigger_keys() -> set[str]:
    plain = {each["name"] for each in _parameters() if each.get("metadataVariableReadable")}
    return plain | {f"{each['name']}FromEnv" for each in _parameters() if each.get("envVariableReadable")}


def _parameters() -> list[dict[str, Any]]:
    file = Path(__file__).parent / "schemas" / "keda-kafka-trigger.json"
    return list(json.loads(file.read_text("utf-8"))["parameters"])
