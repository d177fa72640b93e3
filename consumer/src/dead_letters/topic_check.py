"""Checks the dead-letter topic before the consumer starts."""

from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource

from src.dead_letters.dead_letter import MAX_OVERHEAD_BYTES
from src.kafka.topic_check import check_topic_operations, find_topic
from src.model.check_result import CheckResult

TopicConfig = Mapping[str, str]


def check(
    admin: AdminClient, dead_letter_topic: str, data_topics: Sequence[str], timeout: float
) -> Iterator[CheckResult]:
    """`timeout` is for each request, in seconds."""
    try:
        topic = find_topic(admin, dead_letter_topic, timeout)
    except KafkaException as error:
        yield CheckResult("dead-letter topic", False, f"{dead_letter_topic}: no metadata: {error.args[0].str()}")
        return
    if topic is None:
        text = f"{dead_letter_topic} does not exist; create it, or set KAFKA_DEAD_LETTER_TOPIC"
        yield CheckResult("dead-letter topic", False, text)
        return
    yield CheckResult("dead-letter topic", True, f"{dead_letter_topic} has {len(topic.partitions)} partition(s)")
    name = "dead-letter permissions"
    yield check_topic_operations(name, admin, dead_letter_topic, [AclOperation.WRITE], timeout)
    configs = _describe_configs(admin, (dead_letter_topic, *data_topics), timeout)
    if dead_letter_topic not in configs:
        text = f"the broker does not return the configuration of {dead_letter_topic}: that takes DescribeConfigs on it"
        yield CheckResult("dead letters are kept", True, text)
        return
    yield _check_cleanup_policy(configs[dead_letter_topic])
    if described := [configs[topic] for topic in data_topics if topic in configs]:
        yield _check_size(configs[dead_letter_topic], described)


def _describe_configs(admin: AdminClient, topics: Sequence[str], timeout: float) -> dict[str, TopicConfig]:
    """Without the topics whose configuration the broker does not return."""
    resources = [ConfigResource("topic", topic) for topic in topics]
    configs: dict[str, TopicConfig] = {}
    for resource, response in admin.describe_configs(resources, request_timeout=timeout).items():
        try:
            configs[resource.name] = {name: entry.value or "" for name, entry in response.result(2 * timeout).items()}
        except (KafkaException, TimeoutError):
            continue
    return configs


def _check_cleanup_policy(config: TopicConfig) -> CheckResult:
    policy = config["cleanup.policy"]
    text = f"cleanup.policy is {policy}, retention.ms is {config['retention.ms']}"
    if "compact" in policy:
        text += "; compaction rejects dead letters without a key, and keeps one for each key: set cleanup.policy=delete"
    return CheckResult("dead letters are kept", "compact" not in policy, text)


def _check_size(dead_letters: TopicConfig, data: Sequence[TopicConfig]) -> CheckResult:
    limit = int(dead_letters["max.message.bytes"])
    data_limit = max(int(config["max.message.bytes"]) for config in data)
    of_data = "that of the data topic" if len(data) == 1 else "the largest of the data topics"
    text = f"max.message.bytes is {limit:,}, {of_data} is {data_limit:,}"
    fits = limit >= data_limit + MAX_OVERHEAD_BYTES
    if not fits:
        text += f"; set it to {data_limit + 4 * MAX_OVERHEAD_BYTES} or more"
    return CheckResult("dead letters fit", fits, text)
