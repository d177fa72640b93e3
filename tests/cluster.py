"""The demo of kubernetes/ in a real cluster, for the tests marked `kubernetes`.

They run only in the context that KUBERNETES_TEST_CONTEXT names, because kubectl's own may be that of a cluster in use.
The cluster must have the images of both services.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pytest

OVERLAYS = Path(__file__).resolve().parent.parent / "kubernetes" / "overlays"
NAMESPACE = "kafka-pubsub"
TIMEOUT = 300.0  # seconds
LOAD_INTERVAL_MS = 10  # a message every 10 ms, in place of every 36 ms

Json = dict[str, Any]


class Cluster:
    """Runs kubectl in the namespace of the demo."""

    def __init__(self, context: str) -> None:
        self._kubectl = ["kubectl", "--context", context, "--namespace", NAMESPACE]

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._kubectl, *arguments], input=stdin, text=True, capture_output=True, timeout=TIMEOUT
        )

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Json:
        return dict(json.loads(self.kubectl("get", "--output", "json", *arguments)))

    def apply(self, overlay: str) -> None:
        self.kubectl("apply", "--kustomize", str(OVERLAYS / overlay))

    def python(self, workload: str, *arguments: str) -> str:
        return self.kubectl("exec", workload, "--", "python", *arguments)

    def rollout(self, *workloads: str) -> None:
        for workload in workloads:
            self.kubectl("rollout", "status", workload, f"--timeout={TIMEOUT:.0f}s")

    def scale(self, workload: str, replicas: int) -> None:
        self.kubectl("scale", workload, f"--replicas={replicas}")
        self.rollout(workload)

    def pods(self, service: str) -> list[Json]:
        return list(self.get("pods", "--selector", f"app.kubernetes.io/name={service}")["items"])

    def ready_pods(self, service: str) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods(service) if is_ready(pod)]

    def status(self, workload: str) -> Json:
        """What `python -m src.status` prints, whether the service is ready or not."""
        return dict(json.loads(self.run("exec", workload, "--", "python", "-m", "src.status", "--json").stdout))

    def audit(self) -> tuple[int, int]:
        """Messages lost and stored twice, of all that are in the topic now."""
        report = self.python("deployment/consumer", "-m", "src.audit", "--json", "--wait", "240")
        return json.loads(report)["lost"], json.loads(report)["twice"]


def is_ready(pod: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def wait_until(condition: Callable[[], object], description: str, timeout: float = TIMEOUT) -> float:
    """The seconds until the condition held."""
    start = monotonic()
    while not condition():
        assert monotonic() < start + timeout, f"not within {timeout:.0f} s: {description}"
        Event().wait(0.5)
    return monotonic() - start


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    context = os.environ.get("KUBERNETES_TEST_CONTEXT")
    if not context:
        pytest.skip("needs a Kubernetes cluster: KUBERNETES_TEST_CONTEXT is not set")
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    cluster = Cluster(context)
    assert cluster.run("get", "namespace", NAMESPACE).returncode, f"the cluster has a namespace {NAMESPACE} already"
    try:
        cluster.apply("demo")
        cluster.kubectl("set", "env", "statefulset/producer", f"PRODUCER_INTERVAL_MS={LOAD_INTERVAL_MS}")
        cluster.rollout("statefulset/kafka", "statefulset/mongodb", "deployment/consumer", "statefulset/producer")
        yield cluster
    finally:
        cluster.run("delete", "namespace", NAMESPACE, "--wait")
