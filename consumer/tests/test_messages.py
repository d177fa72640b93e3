"""Conversions of the Kafka client's errors."""

from confluent_kafka import KafkaError, KafkaException

from src.kafka.messages import reason


def test_a_reason_is_the_text_of_the_clients_error_without_its_code() -> None:
    assert reason(KafkaException(KafkaError(KafkaError._RESOLVE, "no such host"))) == "no such host"
    assert reason(ValueError("odd")) == "odd"
    assert reason(ValueError()) == ""
