"""What is kept of a message."""

from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message

from src.kafka.messages import UNREADABLE, reason, record_of


class Delivered:
    """A message as the client hands it over, with headers that it can't decode."""

    def topic(self) -> str:
        return "data-topic"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 7

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"v"

    def timestamp(self) -> tuple[int, int]:
        return (0, -1)

    def headers(self) -> Any:
        return b"\xff".decode()


def test_a_header_name_that_is_not_utf8_costs_the_headers_and_not_the_message() -> None:
    record = record_of(cast(Message, Delivered()), assignment=3)

    assert record.headers == UNREADABLE
    assert (record.value, record.offset, record.assignment, record.timestamp) == (b"v", 7, 3, None)


def test_a_reason_is_what_the_client_says_without_its_code() -> None:
    assert reason(KafkaException(KafkaError(KafkaError._RESOLVE, "no such host"))) == "no such host"
    assert reason(ValueError("odd")) == "odd"
    assert reason(ValueError()) == ""
