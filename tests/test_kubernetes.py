"""The demo on a real Kubernetes, under load: updates, drains, killed pods, a wrong Secret, and scaling by lag."""

import json
import logging
from threading import Thread
from time import monotonic
from typing import NamedTuple

import pytest

from tests.cluster import NAMESPACE, Cluster, cluster, wait_until

__all__ = ["cluster"]

BURST = 200_000
PARTITIONS = 6
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}

pytestmark = pytest.mark.kubernetes
logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """During a burst. The lag is what KEDA sees."""

    seconds: float
    wanted: int
    ready: int
    lag: int


def test_the_demo_stores_messages(cluster: Cluster) -> None:
    wait_until(lambda: cluster.status("deployment/consumer")["metrics"]["stored"], "messages are stored")

    assert cluster.audit() == (0, 0)


def test_a_rolling_update_under_load_loses_nothing(cluster: Cluster) -> None:
    cluster.scale("deployment/consumer", 3)
    before = set(cluster.ready_pods("consumer"))
    start = monotonic()

    cluster.kubectl("rollout", "restart", "deployment/consumer")
    cluster.rollout("deployment/consumer")

    logger.info("rolling update of 3 consumers: %.0f s", monotonic() - start)
    wait_until(lambda: len(cluster.ready_pods("consumer")) == 3, "three consumers are ready")
    assert set(cluster.ready_pods("consumer")).isdisjoint(before)
    assert cluster.audit() == (0, 0)


def test_a_second_consumer_is_not_evicted_before_the_first_is_replaced(cluster: Cluster) -> None:
    first, second, _ = cluster.ready_pods("consumer")
    start = monotonic()

    evicted, refused = evict(cluster, first), evict(cluster, second)

    assert evicted == ""
    assert "disruption budget" in refused
    wait_until(lambda: first not in (ready := cluster.ready_pods("consumer")) and len(ready) == 3, "it is replaced")
    logger.info("evicted consumer replaced: %.0f s", monotonic() - start)
    assert evict(cluster, second) == ""
    wait_until(lambda: len(cluster.ready_pods("consumer")) == 3, "replaced")
    assert cluster.audit() == (0, 0)


def evict(cluster: Cluster, pod: str) -> str:
    """The error; empty if the pod is evicted, as by `kubectl drain`."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    body = json.dumps({**EVICTION, "metadata": {"name": pod, "namespace": NAMESPACE}})
    return cluster.run("create", "--raw", path, "--filename", "-", stdin=body).stderr


def test_a_killed_consumer_loses_nothing(cluster: Cluster) -> None:
    killed = cluster.ready_pods("consumer")[0]

    cluster.kubectl("delete", "pod", killed, "--force", "--grace-period=0")

    seconds = wait_until(lambda: len(cluster.ready_pods("consumer")) == 3, "three consumers are ready")
    logger.info("killed consumer replaced: %.0f s", seconds)
    assert cluster.audit() == (0, 0)


def test_undelivered_messages_survive_the_pod_of_the_producer(cluster: Cluster) -> None:
    cluster.scale("statefulset/kafka", 0)
    cluster.kubectl("delete", "pod", "producer-0")
    wait_until(lambda: cluster.pods("producer"), "the producer is replaced")
    wait_until(lambda: undelivered(cluster), "the new pod finds undelivered messages")
    kept = undelivered(cluster)

    cluster.scale("statefulset/kafka", 1)

    wait_until(lambda: undelivered(cluster) == 0, "they are resent")
    cluster.rollout("deployment/consumer", "statefulset/producer")
    logger.info("%s undelivered messages resent by the next pod", kept)
    assert cluster.audit() == (0, 0)


def undelivered(cluster: Cluster) -> int | None:
    """None while the pod is starting."""
    output = cluster.run("exec", "statefulset/producer", "--", "python", "-m", "src.status", "--json").stdout
    return json.loads(output)["metrics"]["undelivered"] if output.startswith("{") else None


def test_a_wrong_secret_stops_the_rollout_with_its_reason_and_the_old_consumers_go_on(cluster: Cluster) -> None:
    before = set(cluster.ready_pods("consumer"))
    uri = "mongodb://consumer:wrong@mongodb:27017/?authSource=admin"
    cluster.kubectl("create", "secret", "generic", "wrong", f"--from-literal=uri={uri}")
    volume = {"name": "mongodb", "secret": {"secretName": "wrong"}}

    patch = json.dumps({"spec": {"template": {"spec": {"volumes": [volume]}}}})
    cluster.kubectl("patch", "deployment/consumer", "--patch", patch)

    wait_until(lambda: "uthentication failed" in unready_reasons(cluster), "an event has the reason")
    ready = set(cluster.ready_pods("consumer"))
    assert before <= ready
    assert {replica_set(pod) for pod in ready} == {replica_set(pod) for pod in before}
    cluster.kubectl("rollout", "undo", "deployment/consumer")
    cluster.rollout("deployment/consumer")
    assert cluster.audit() == (0, 0)


def replica_set(pod: str) -> str:
    return pod.rpartition("-")[0]


def unready_reasons(cluster: Cluster) -> str:
    events = cluster.get("events", "--field-selector", "reason=Unhealthy")["items"]
    return "\n".join(event["message"] for event in events)


def test_a_producer_cannot_reach_mongodb(cluster: Cluster) -> None:
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    assert cluster.python("statefulset/producer", "-c", connect, "kafka", "9092") == ""
    refused = cluster.run("exec", "statefulset/producer", "--", "python", "-c", connect, "mongodb", "27017")
    assert refused.returncode == 1
    assert "TimeoutError" in refused.stderr or "refused" in refused.stderr


def test_keda_follows_the_lag_of_a_burst(cluster: Cluster) -> None:
    if cluster.run("get", "crd", "scaledobjects.keda.sh").returncode:
        pytest.skip("needs KEDA in the cluster")
    cluster.scale("deployment/consumer", 1)
    cluster.apply("demo-autoscaling")
    cluster.kubectl("wait", "scaledobject/consumer", "--for=condition=Ready", "--timeout=120s")
    trace: list[Sample] = []
    start = monotonic()
    burst = Thread(target=send_burst, args=(cluster,))
    burst.start()

    def replicas() -> int:
        deployment = cluster.get("deployment/consumer")
        wanted, ready = deployment["spec"]["replicas"], deployment["status"].get("readyReplicas", 0)
        trace.append(Sample(monotonic() - start, wanted, ready, lag(cluster)))
        return int(wanted)

    wait_until(lambda: replicas() == PARTITIONS, "one consumer per partition")
    burst.join()
    wait_until(lambda: replicas() and trace[-1].lag < PARTITIONS * 100, "the consumers have caught up", timeout=600)
    caught_up = monotonic() - start
    wait_until(lambda: replicas() == 1, "one consumer again", timeout=600)
    assert cluster.audit() == (0, 0)

    logger.info("caught up after %.0f s", caught_up)
    for sample in every_ten_seconds(trace):
        logger.info("%.0f s: %s consumers wanted, %s ready, lag %s", *sample)


def lag(cluster: Cluster) -> int:
    """0 as long as KEDA has not measured it."""
    selector = "labelSelector=scaledobject.keda.sh%2Fname%3Dconsumer"
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/s0-kafka-data-topic?{selector}"
    found = cluster.run("get", "--raw", path).stdout
    return sum(quantity(item["value"]) for item in json.loads(found)["items"]) if found else 0


def quantity(text: str) -> int:
    """Of Kubernetes: 1500m, 20k."""
    factors = {"m": 0.001, "k": 1000}
    return round(float(text.rstrip("mk")) * factors.get(text[-1], 1))


def send_burst(cluster: Cluster) -> None:
    environ = ["env", "PRODUCER_INTERVAL_MS=0", "METRICS_PORT=0"]
    command = [*environ, "python", "-m", "src.producer", "--count", str(BURST)]
    cluster.kubectl("exec", "statefulset/producer", "--", *command)


def every_ten_seconds(trace: list[Sample]) -> list[Sample]:
    return list({round(sample.seconds, -1): sample for sample in trace}.values())
