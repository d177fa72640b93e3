"""Every metric that the specification requires, and every query of rules and dashboards, has data on a running stack.

Set PROMETHEUS_URL to use a stack that is already running: http://127.0.0.1:9090 after `docker compose up`.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.stack import Stack

ROOT = Path(__file__).parents[1]
DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"
TIMEOUT = 120.0  # seconds from "healthy" until every rate has two samples and every group a committed offset
ALERT_TIMEOUT = 240.0  # seconds until an alert with `for: 1m` reaches Alertmanager, or is resolved

REQUIRED = [
    ("Kafka: broker online", 'up{job="kafka"} == 1 and on () kafka_server_kafkaserver_brokerstate == 3'),
    ("Kafka: broker response time", 'kafka_network_requestmetrics_totaltimems{request="Produce",quantile="0.99"}'),
    ("Kafka: partitions per topic", "kafka_topic_partitions"),
    ("Kafka: leaders", "sum(kafka_server_replicamanager_leadercount)"),
    (
        "Kafka: followers",
        "sum(kafka_server_replicamanager_partitioncount) - sum(kafka_server_replicamanager_leadercount)",
    ),
    ("Kafka: replication factor", "max by (topic) (kafka_topic_partition_replicas)"),
    ("Kafka: in-sync replicas", "min by (topic) (kafka_topic_partition_in_sync_replica)"),
    (
        "Kafka: messages produced per second",
        'rate(kafka_server_brokertopicmetrics_messagesin_total{topic!=""}[1m]) > 0',
    ),
    ("Kafka: messages consumed per second", "rate(kafka_consumergroup_current_offset[1m]) > 0"),
    ("Kafka: bytes in per second", 'rate(kafka_server_brokertopicmetrics_bytesin_total{topic=""}[1m]) > 0'),
    ("Kafka: bytes out per second", 'rate(kafka_server_brokertopicmetrics_bytesout_total{topic=""}[1m]) > 0'),
    ("Kafka: consumer lag", "kafka_consumergroup_lag_sum"),
    ("Kafka: consumer group members", "kafka_consumergroup_members > 0"),
    ("ZooKeeper: online", 'up{job="zookeeper"} == 1'),
    ("ZooKeeper: response time", 'avg_latency{job="zookeeper"}'),
    ("ZooKeeper: leader or follower", 'leader_uptime{job="zookeeper"}'),
    ("ZooKeeper: connections", 'num_alive_connections{job="zookeeper"} > 0'),
    ("ZooKeeper: requests per second", 'rate(packets_received{job="zookeeper"}[1m]) > 0'),
    ("Producer: online and healthy", 'up{job="producer"} == 1 and on (instance) producer_healthy == 1'),
    ("Producer: messages produced per second", 'rate(producer_messages_total{result="delivered"}[1m]) > 0'),
    (
        "Producer: average batch size",
        "rate(producer_batch_size_messages_sum[1m]) / (rate(producer_batch_size_messages_count[1m]) > 0)",
    ),
    ("Producer: percentage of failed deliveries", "producer:failed_percent:rate5m"),
    (
        "Producer: time to send",
        "histogram_quantile(0.95, sum by (le) (rate(producer_send_latency_seconds_bucket[1m]))) > 0",
    ),
    ("Consumer: online and healthy", 'up{job="consumer"} == 1 and on (instance) consumer_healthy == 1'),
    ("Consumer: messages consumed per second", 'rate(consumer_messages_total{result="stored"}[1m]) > 0'),
    ("Consumer: offset commits per second", 'rate(consumer_offset_commits_total{result="success"}[1m]) > 0'),
    ("Consumer: percentage of processing failures", "consumer:dead_lettered_percent:rate5m"),
    ("MongoDB: online", "mongodb_up == 1"),
    ("MongoDB: response time", 'rate(mongodb_ss_opLatencies_latency{op_type="writes"}[1m]) > 0'),
    ("MongoDB: connections", 'mongodb_ss_connections{conn_type="current"} > 0'),
    (
        "MongoDB: reads, writes, updates, deletes",
        'count(mongodb_ss_opcounters{legacy_op_type=~"query|insert|update|delete"}) >= 4',
    ),
    ("MongoDB: growth of the collection", "deriv(mongodb_collstats_storageStats_size[1h]) > 0"),
    ("System: state of the containers", "count(count by (service) (container_health_state)) >= 10"),
    ("System: restarts of the containers", "service:restarts:changes15m"),
    ("System: CPU of the containers", "rate(container_cpu_usage_seconds_total[1m]) > 0"),
    ("System: CPU of the machine", '100 - 100 * avg(rate(node_cpu_seconds_total{mode="idle"}[1m]))'),
    ("System: memory of the containers", "service:memory_percent:max > 0"),
    ("System: memory of the machine", "instance:memory_used_percent:max > 0"),
    ("System: disk", "instance:disk_used_percent:max > 0"),
]

pytestmark = pytest.mark.docker


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._open = build_opener(ProxyHandler({})).open

    def query(self, expression: str) -> list[Any]:
        with self._open(f"{self._url}/api/v1/query", urlencode({"query": expression}).encode(), timeout=10) as response:
            return list(json.load(response)["data"]["result"])

    def failing_rules(self) -> list[str]:
        with self._open(f"{self._url}/api/v1/rules", timeout=10) as response:
            groups = json.load(response)["data"]["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    def without_data(self, entries: Sequence[tuple[str, list[str]]]) -> list[str]:
        """Names of the entries for which no query has returned data before the timeout."""
        deadline = monotonic() + TIMEOUT
        empty = list(entries)
        while empty := [entry for entry in empty if not any(map(self.query, entry[1]))]:
            if monotonic() > deadline:
                break
            Event().wait(5)
        return [name for name, _ in empty]


@pytest.fixture(scope="module")
def prometheus(request: pytest.FixtureRequest) -> Prometheus:
    """The Prometheus of PROMETHEUS_URL, or of a stack started for the tests."""
    url = os.environ.get("PROMETHEUS_URL", "")
    if not url:
        url = f"http://{request.getfixturevalue('stack').compose('port', 'prometheus', '9090').strip()}"
    return Prometheus(url)


def panels_with_queries() -> list[tuple[str, list[str]]]:
    allowed = (ROOT / "monitoring" / "grafana" / "allow-empty.txt").read_text("utf-8").splitlines()
    models = [json.loads(path.read_text("utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))]
    return [
        (
            f"{model['title']}: {panel['title']}",
            [expand(target["expr"]) for target in panel["targets"]],
        )
        for model in models
        for panel in model["panels"]
        if panel["type"] != "row" and panel["title"] not in allowed
    ]


def expand(expression: str) -> str:
    """Substitutes Grafana variables, each set to All."""
    return re.sub(r"\$\w+", ".+", expression.replace("$__rate_interval", "1m"))


def test_every_metric_that_the_specification_requires_has_data(prometheus: Prometheus) -> None:
    assert prometheus.without_data([(requirement, [query]) for requirement, query in REQUIRED]) == []


def test_every_panel_has_data(prometheus: Prometheus) -> None:
    assert prometheus.without_data(panels_with_queries()) == []


def test_every_rule_evaluates(prometheus: Prometheus) -> None:
    assert prometheus.failing_rules() == []


# --- alerts, from fault to Alertmanager


def alerts(stack: Stack, *options: str) -> dict[str, str]:
    """The summaries of the active alerts in Alertmanager, filtered by the options."""
    query = ["amtool", "--alertmanager.url=http://127.0.0.1:9093", "--output=json", "alert", "query", *options]
    found = json.loads(stack.compose("exec", "-T", "alertmanager", *query))
    return {alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in found}


def wait_for(stack: Stack, holds: Callable[[dict[str, str]], bool], *options: str) -> dict[str, str]:
    deadline = monotonic() + ALERT_TIMEOUT
    while not holds(found := alerts(stack, *options)):
        assert monotonic() < deadline, f"alerts after {ALERT_TIMEOUT:.0f} s: {found}"
        Event().wait(2)
    return found


def test_a_stopped_consumer_fires_one_alert_that_resolves_when_it_is_back(stack: Stack) -> None:
    stack.compose("stop", "consumer")
    first = wait_for(stack, lambda found: "ServiceUnavailable" in found)
    wait_for(stack, lambda found: "NoPartitionsConsumed" in found, "--inhibited")
    later = alerts(stack)
    stack.compose("start", "consumer")

    wait_for(stack, lambda found: "ServiceUnavailable" not in found)

    assert first["ServiceUnavailable"] == "consumer is unreachable"
    assert "NoPartitionsConsumed" not in later
    stack.wait_until_healthy()


def test_an_invalid_message_fires_an_alert_with_the_reason(stack: Stack) -> None:
    produce = "from confluent_kafka import Producer as P; p = P({'bootstrap.servers': 'kafka:9092'})"
    stack.python("producer", "-c", f"{produce}; p.produce('data-topic', b'invalid'); assert p.flush(30) == 0")

    found = wait_for(stack, lambda found: "DeadLettersArriving" in found)

    assert found["DeadLettersArriving"] == "Messages are being dead-lettered: not_json"
