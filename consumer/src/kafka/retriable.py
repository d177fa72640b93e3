"""Errors that resolve within seconds without intervention: the request is retried."""

from confluent_kafka import KafkaError, KafkaException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

RETRY_TIMEOUT = 15.0  # seconds
RETRY_INTERVAL = 0.2

RETRIABLE = frozenset(
    {
        # a broker has just started, or the group moves to another coordinator
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        # the topic was created a moment ago, or a partition moves to another leader
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)


def is_retriable(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in RETRIABLE


def retrying(timeout: float = RETRY_TIMEOUT) -> Retrying:
    """Retries a call while its error is retriable, for up to `timeout` seconds."""
    return Retrying(
        retry=retry_if_exception(is_retriable),
        wait=wait_fixed(RETRY_INTERVAL),
        stop=stop_after_delay(timeout),
        reraise=True,
    )
