"""Kafka and ZooKeeper: the broker, its topics, its groups."""

from dashboards.grafana import GREEN, ORANGE, RED, Choice, Column, Dashboard, Query, Row, Texts, graph, stat, table
from dashboards.shared import NO_COMMIT, NO_MESSAGES, REBALANCES, STARTS, Limits, highest_lag, lag_by_group, running

BROKER: Texts = {
    0: ("DOWN", RED),
    1: ("STARTING", ORANGE),
    2: ("RECOVERING", ORANGE),
    3: ("RUNNING", GREEN),
    6: ("STOPPING", ORANGE),
    7: ("STOPPING", ORANGE),
}
ROLE: Texts = {0: ("FOLLOWER", GREEN), 1: ("LEADER", GREEN)}
SESSION_LIVES = 'kafka_server_zookeeper_session_state{state="CONNECTED"}'
SESSION: Texts = {0: ("LOST", RED), 1: ("CONNECTED", GREEN)}


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "kafka",
        "Kafka Monitoring",
        "Is the broker well, are the topics whole, do the groups keep up?",
        [_broker(limits), _traffic(), _topics(), _groups(limits), _zookeeper()],
        choices=[
            Choice("topic", "Topic", 'label_values(kafka_topic_partitions{topic!~"__.*"}, topic)'),
            Choice("group", "Consumer group", "label_values(kafka_consumergroup_members, consumergroup)"),
        ],
        annotations=[STARTS, REBALANCES],
    )


def _broker(limits: Limits) -> Row:
    return Row(
        "Broker",
        [
            stat(
                "Broker",
                "What the broker says of itself; DOWN where it says nothing.",
                "min(kafka_server_kafkaserver_brokerstate)",
                texts=BROKER,
                missing="DOWN",
            ),
            stat(
                "ZooKeeper session",
                "LOST: no topic, partition or leader can change, and a restart fails.",
                f"count({SESSION_LIVES}) or 0 * absent({SESSION_LIVES})",
                texts=SESSION,
                missing="LOST",
            ),
            stat(
                "Response time",
                "99 of 100 produce requests are answered faster.",
                'max(kafka_network_requestmetrics_totaltimems{request="Produce",quantile="0.99"})',
                "ms",
                missing="unknown",
                decimals=1,
            ),
            stat(
                "Leaders",
                "Partitions that a broker leads.",
                "sum(kafka_server_replicamanager_leadercount)",
                missing="unknown",
                decimals=0,
            ),
            stat(
                "Followers",
                "Replicas that follow another broker; with one broker there is none.",
                "sum(kafka_server_replicamanager_partitioncount) - sum(kafka_server_replicamanager_leadercount)",
                missing="unknown",
                decimals=0,
            ),
            highest_lag(limits),
        ],
    )


def _traffic() -> Row:
    return Row(
        "Traffic",
        [
            graph(
                "Messages in",
                "A second, by topic, as the broker counts them.",
                [
                    Query(
                        "sum by (topic) "
                        '(rate(kafka_server_brokertopicmetrics_messagesin_total{topic=~"$topic",topic!~"__.*"}[$__rate_interval]))',
                        "{{topic}}",
                    )
                ],
                "mps",
                missing=NO_MESSAGES,
            ),
            graph(
                "Messages consumed",
                "A second, by group, from committed offsets.",
                [
                    Query(
                        "sum by (consumergroup, topic) "
                        '(rate(kafka_consumergroup_current_offset{consumergroup=~"$group"}[$__rate_interval]))',
                        "{{consumergroup}}: {{topic}}",
                    )
                ],
                "mps",
                missing=NO_COMMIT,
            ),
            graph(
                "Bytes in and out",
                "A second, all topics, as compressed.",
                [
                    Query('sum(rate(kafka_server_brokertopicmetrics_bytesin_total{topic=""}[$__rate_interval]))', "in"),
                    Query(
                        'sum(rate(kafka_server_brokertopicmetrics_bytesout_total{topic=""}[$__rate_interval]))', "out"
                    ),
                ],
                "Bps",
            ),
            graph(
                "Response times",
                "99th percentile. A consumer's fetch waits for messages up to half a second: that is no fault.",
                [
                    Query(
                        'max by (request) (kafka_network_requestmetrics_totaltimems{quantile="0.99"})',
                        "{{request}} p99",
                    ),
                    Query(
                        'max(kafka_network_requestmetrics_totaltimems{request="Produce",quantile="0.50"})',
                        "Produce p50",
                    ),
                ],
                "ms",
            ),
        ],
    )


def _topics() -> Row:
    of = '{topic=~"$topic",topic!~"__.*"}'
    return Row(
        "Topics",
        [
            table(
                "Topics",
                "Led: partitions with a leader. In sync: replicas of the worst partition. Short of one: partitions "
                "that lack one. Messages: between the oldest and the newest offset.",
                [
                    Column("Topic", label="topic", width=160),
                    Column("Partitions", f"max by (topic) (kafka_topic_partitions{of})", width=90),
                    Column("Led", f"count by (topic) (kafka_topic_partition_leader{of} >= 0)", width=70),
                    Column("Replicas", f"max by (topic) (kafka_topic_partition_replicas{of})", width=90),
                    Column("In sync", f"min by (topic) (kafka_topic_partition_in_sync_replica{of})", width=90),
                    Column(
                        "Short of one",
                        f"sum by (topic) (kafka_topic_partition_under_replicated_partition{of})",
                        limit=1,
                        width=110,
                    ),
                    Column(
                        "Messages",
                        f"sum by (topic) (kafka_topic_partition_current_offset{of}) "
                        f"- sum by (topic) (kafka_topic_partition_oldest_offset{of})",
                        unit="short",
                    ),
                    Column("Size", f"sum by (topic) (kafka_log_log_size{of})", unit="bytes"),
                ],
                height=6,
            ),
        ],
    )


def _groups(limits: Limits) -> Row:
    return Row(
        "Consumer groups",
        [
            lag_by_group(limits, height=11),
            graph(
                "Lag by partition",
                "The ten partitions that are furthest behind. One that stands out has a consumer that is stuck.",
                [
                    Query(
                        'topk(10, kafka_consumergroup_lag{consumergroup=~"$group",topic=~"$topic"} >= 0)',
                        "{{consumergroup}}: {{topic}}/{{partition}}",
                    )
                ],
                height=11,
                missing=NO_COMMIT,
            ),
            graph(
                "Members",
                "Consumers that are in the group.",
                [Query('kafka_consumergroup_members{consumergroup=~"$group"}', "{{consumergroup}}")],
                width=8,
                height=7,
            ),
            graph(
                "Broker's threads idle",
                "Share of time that the broker's threads have nothing to do; near 0 it is overloaded.",
                [
                    Query("100 * min(kafka_server_requesthandler_idle_ratio)", "request handlers"),
                    Query("100 * min(kafka_network_processor_idle_ratio)", "network"),
                ],
                "percent",
                width=8,
                height=7,
                highest=100,
            ),
            graph(
                "Broker's open files",
                "Segments, their indexes, and connections; at the limit of its container it stops.",
                [Query('max(process_open_fds{job="kafka"})', "open")],
                width=8,
                height=7,
            ),
        ],
    )


def _zookeeper() -> Row:
    return Row(
        "ZooKeeper",
        [
            running("zookeeper", "ZooKeeper"),
            stat(
                "Role",
                "A single node leads a quorum of one.",
                'clamp_max(max(leader_uptime{job="zookeeper"}), 1) or 0 * max(num_alive_connections{job="zookeeper"})',
                texts=ROLE,
                missing="NONE",
            ),
            stat(
                "Response time",
                "Average since it started.",
                'max(avg_latency{job="zookeeper"})',
                "ms",
                missing="unknown",
                decimals=1,
            ),
            stat(
                "Connections",
                "Clients that are connected.",
                'sum(num_alive_connections{job="zookeeper"})',
                missing="unknown",
                decimals=0,
            ),
            stat(
                "Waiting requests",
                "Not yet answered.",
                'sum(outstanding_requests{job="zookeeper"})',
                missing="unknown",
                decimals=0,
            ),
            stat("Nodes", "Entries in its tree.", 'max(znode_count{job="zookeeper"})', missing="unknown", decimals=0),
            graph(
                "Requests",
                "Packets a second.",
                [
                    Query('sum(rate(packets_received{job="zookeeper"}[$__rate_interval]))', "received"),
                    Query('sum(rate(packets_sent{job="zookeeper"}[$__rate_interval]))', "sent"),
                ],
                "cps",
                height=7,
            ),
            graph(
                "Connections",
                "Clients that are connected.",
                [Query('sum(num_alive_connections{job="zookeeper"})', "connections")],
                height=7,
            ),
        ],
    )
