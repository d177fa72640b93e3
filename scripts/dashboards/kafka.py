"""Kafka Monitoring: brokers, topics, consumer groups, and ZooKeeper or the controller quorum."""

from dashboards.grafana import GREEN, ORANGE, RED, Column, Dashboard, Row, ValueMappings, Variable, graph, stat, table
from dashboards.shared import (
    NO_COMMIT,
    NO_MESSAGES,
    REBALANCES,
    STARTS,
    Thresholds,
    highest_lag,
    lag_by_group,
    rate,
    zookeeper_or_quorum,
)

BROKER: ValueMappings = {
    0: ("DOWN", RED),
    1: ("STARTING", ORANGE),
    2: ("RECOVERING", ORANGE),
    3: ("RUNNING", GREEN),
    6: ("STOPPING", ORANGE),
    7: ("STOPPING", ORANGE),
}
ROLE: ValueMappings = {0: ("FOLLOWER", GREEN), 1: ("LEADER", GREEN)}
SESSION = "kafka_server_zookeeper_session_state"
METADATA: ValueMappings = {0: ("LOST", RED), 1: ("AVAILABLE", GREEN)}
WITH_ZOOKEEPER = "with ZooKeeper: none"
TOPICS = '{topic=~"$topic",topic!~"__.*"}'


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "kafka",
        "Kafka Monitoring",
        "Brokers, topics, consumer groups, and ZooKeeper or the controller quorum.",
        [_broker(thresholds), _traffic(), _topics(), _groups(thresholds), _zookeeper(), _quorum()],
        variables=[
            Variable("topic", "Topic", 'label_values(kafka_topic_partitions{topic!~"__.*"}, topic)'),
            Variable("group", "Consumer group", "label_values(kafka_consumergroup_members, consumergroup)"),
        ],
        annotations=[STARTS, REBALANCES],
    )


def _broker(thresholds: Thresholds) -> Row:
    return Row(
        "Broker",
        [
            stat(
                "Broker",
                "State reported by the broker; DOWN if it reports none.",
                "min(kafka_server_kafkaserver_brokerstate)",
                mappings=BROKER,
                no_value="DOWN",
            ),
            stat(
                "Metadata",
                "LOST: the broker has no ZooKeeper session, or the quorum no active controller. Topics, partitions and"
                " leaders cannot change, and a restarted broker cannot start.",
                f'count({SESSION}{{state="CONNECTED"}})'
                f" or max(kafka_controller_kafkacontroller_activecontrollercount unless on () group({SESSION}))",
                mappings=METADATA,
                no_value="LOST",
            ),
            stat(
                "Produce latency",
                "99th percentile of the time that the broker takes to handle a produce request.",
                'max(kafka_network_requestmetrics_totaltimems{request="Produce",quantile="0.99"})',
                "ms",
                decimals=1,
            ),
            stat("Leaders", "Partitions led by a broker.", "sum(kafka_server_replicamanager_leadercount)"),
            stat(
                "Followers",
                "Replicas that follow a leader on another broker; 0 with a single broker.",
                "sum(kafka_server_replicamanager_partitioncount) - sum(kafka_server_replicamanager_leadercount)",
            ),
            highest_lag(thresholds),
        ],
    )


def _traffic() -> Row:
    return Row(
        "Traffic",
        [
            graph(
                "Messages in",
                "Messages per second, by topic.",
                {"{{topic}}": rate(f"kafka_server_brokertopicmetrics_messagesin_total{TOPICS}", by="topic")},
                "mps",
                no_value=NO_MESSAGES,
            ),
            graph(
                "Messages consumed",
                "Messages per second, by consumer group, from committed offsets.",
                {
                    "{{consumergroup}}: {{topic}}": rate(
                        'kafka_consumergroup_current_offset{consumergroup=~"$group"}', by="consumergroup, topic"
                    )
                },
                "mps",
                no_value=NO_COMMIT,
            ),
            graph(
                "Bytes in and out",
                "Compressed bytes per second, all topics.",
                {way: rate(f'kafka_server_brokertopicmetrics_bytes{way}_total{{topic=""}}') for way in ("in", "out")},
                "Bps",
            ),
            graph(
                "Request latency",
                "Time to handle a request. Fetch requests of consumers wait up to half a second for messages, "
                "which is normal.",
                {
                    "{{request}} p99": 'max by (request) (kafka_network_requestmetrics_totaltimems{quantile="0.99"})',
                    "Produce p50": 'max(kafka_network_requestmetrics_totaltimems{request="Produce",quantile="0.50"})',
                },
                "ms",
            ),
            graph(
                "Thread idle time",
                "Share of time that the broker's threads are idle. Near 0% the broker is overloaded.",
                {
                    "request handlers": "100 * min(kafka_server_requesthandler_idle_ratio)",
                    "network": "100 * min(kafka_network_processor_idle_ratio)",
                },
                "percent",
                height=7,
                maximum=100,
            ),
            graph(
                "Open files",
                "Open file descriptors of the broker: log segments, indexes and connections.",
                {"open": 'max(process_open_fds{job="kafka"})'},
                height=7,
            ),
        ],
    )


def _topics() -> Row:
    return Row(
        "Topics",
        [
            table(
                "Topics",
                "With leader: partitions that have a leader. In sync: fewest in-sync replicas of any partition. "
                "Under-replicated: number of partitions. Messages: latest minus earliest offset.",
                [
                    Column("Topic", label="topic", width=160),
                    Column("Partitions", f"max by (topic) (kafka_topic_partitions{TOPICS})", width=90),
                    Column("With leader", f"count by (topic) (kafka_topic_partition_leader{TOPICS} >= 0)", width=100),
                    Column("Replicas", f"max by (topic) (kafka_topic_partition_replicas{TOPICS})", width=90),
                    Column("In sync", f"min by (topic) (kafka_topic_partition_in_sync_replica{TOPICS})", width=90),
                    Column(
                        "Under-replicated",
                        f"sum by (topic) (kafka_topic_partition_under_replicated_partition{TOPICS})",
                        threshold=1,
                        width=140,
                    ),
                    Column(
                        "Messages",
                        f"sum by (topic) (kafka_topic_partition_current_offset{TOPICS}) "
                        f"- sum by (topic) (kafka_topic_partition_oldest_offset{TOPICS})",
                    ),
                    Column("Size", f"sum by (topic) (kafka_log_log_size{TOPICS})", unit="bytes"),
                ],
                height=6,
            ),
        ],
    )


def _groups(thresholds: Thresholds) -> Row:
    return Row(
        "Consumer groups",
        [
            lag_by_group(thresholds),
            graph(
                "Members",
                "Consumers in each group.",
                {"{{consumergroup}}": 'kafka_consumergroup_members{consumergroup=~"$group"}'},
            ),
            graph(
                "Lag by partition",
                "The ten partitions with the highest lag. A single outlier points to a stuck consumer.",
                {
                    "{{consumergroup}}: {{topic}}/{{partition}}": "topk(10, kafka_consumergroup_lag"
                    '{consumergroup=~"$group",topic=~"$topic"} >= 0)'
                },
                width=24,
                no_value=NO_COMMIT,
            ),
        ],
    )


def _zookeeper() -> Row:
    return Row(
        "ZooKeeper",
        [
            zookeeper_or_quorum(width=6),
            stat(
                "Role",
                "A single node is the leader of its own quorum.",
                'clamp_max(max(leader_uptime{job="zookeeper"}), 1) or 0 * max(num_alive_connections{job="zookeeper"})',
                mappings=ROLE,
                no_value="NONE",
                width=6,
            ),
            stat(
                "Latency",
                "Average request latency since ZooKeeper started.",
                'max(avg_latency{job="zookeeper"})',
                "ms",
                decimals=1,
                width=6,
            ),
            stat(
                "Outstanding requests",
                "Requests received but not yet answered.",
                'sum(outstanding_requests{job="zookeeper"})',
                width=6,
            ),
            graph(
                "Requests",
                "Packets per second.",
                {way: rate(f'packets_{way}{{job="zookeeper"}}') for way in ("received", "sent")},
                "pps",
                height=7,
            ),
            graph(
                "Connections",
                "Open client connections.",
                {"connections": 'sum(num_alive_connections{job="zookeeper"})'},
                height=7,
            ),
        ],
    )


def _quorum() -> Row:
    return Row(
        "Controller quorum",
        [
            stat(
                "Leader",
                "The node that is the active controller, as most of its voters see it.",
                "max(kafka_server_raft_current_leader)",
                no_value=WITH_ZOOKEEPER,
                width=6,
            ),
            stat(
                "Brokers",
                "Brokers that the active controller considers alive.",
                "max(kafka_controller_kafkacontroller_activebrokercount)",
                no_value=WITH_ZOOKEEPER,
                width=6,
            ),
            stat(
                "Fenced brokers",
                "Brokers without heartbeat: killed, frozen or cut off. They lead no partition.",
                "max(kafka_controller_kafkacontroller_fencedbrokercount)",
                threshold=1,
                no_value=WITH_ZOOKEEPER,
                width=6,
            ),
            stat(
                "Commit latency",
                "Time until most voters have a change of the metadata.",
                "max(kafka_server_raft_commit_latency_avg >= 0)",
                "ms",
                decimals=1,
                no_value="no change",
                width=6,
            ),
        ],
    )
