"""Whether the brokers support the group protocol `consumer`, and how long they wait for a killed member."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from src.kafka.messages import reason
from src.model.check_result import CheckResult

NAME = "group protocol"
LONG_SESSION = 45.0  # seconds; the default of the brokers
_KEY = "consumer.session.timeout.ms"  # of the group, or the default of the brokers


def check_group_protocol(admin: AdminClient, group: str, timeout: float) -> CheckResult:
    """Reads the group's configuration, which Kafka has since 4.0."""
    resource = ConfigResource("group", group)
    try:
        config = admin.describe_configs([resource], request_timeout=timeout)[resource].result(2 * timeout)
    except TimeoutError:
        return _unknown("no response")
    except KafkaException as error:
        if error.args[0].code() == KafkaError.INVALID_REQUEST:  # before Kafka 4.0 only topics and brokers have one
            text = "the brokers do not support `consumer`: it requires Kafka 4.0; set KAFKA_GROUP_PROTOCOL to classic"
            return CheckResult(NAME, False, text)
        return _unknown(reason(error))
    return _check_session(int(config[_KEY].value) / 1000) if _KEY in config else _unknown(f"no {_KEY}")


def _check_session(timeout: float) -> CheckResult:
    text = f"consumer; the partitions of a killed consumer wait for {timeout:.0f} s"
    if timeout < LONG_SESSION:
        return CheckResult(NAME, True, text)
    return CheckResult(NAME, True, f"{text}; set group.consumer.session.timeout.ms of the brokers", warning=True)


def _unknown(why: str) -> CheckResult:
    text = f"consumer, which requires Kafka 4.0; the configuration of the group is not available: {why}"
    return CheckResult(NAME, True, text, warning=True)
