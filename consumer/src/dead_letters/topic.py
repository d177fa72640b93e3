"""Writes messages that can never be stored to the dead-letter topic."""

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from src.dead_letters import topic_check
from src.dead_letters.dead_letter import DeadLetter, dead_letter_of
from src.kafka.confirmed_producer import TIMEOUT, ConfirmedProducer, ProducerRecord
from src.model.check_result import CheckResult
from src.model.errors import DeadLetterError
from src.model.record import Rejection
from src.settings import KafkaSettings

CHECK_TIMEOUT = 5.0  # seconds for each request of `check`
LOOK_UP_TIMEOUT = 1.0  # seconds

_HINTS = {
    KafkaError.INVALID_RECORD: "; a compacted topic rejects messages without a key: set its cleanup.policy to delete",
    KafkaError.MSG_SIZE_TOO_LARGE: "; raise its max.message.bytes above the data topic's",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "; the user needs an ACL with Write",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "; create the topic, or set KAFKA_DEAD_LETTER_TOPIC",
    KafkaError._UNKNOWN_TOPIC: "; create the topic, or set KAFKA_DEAD_LETTER_TOPIC",
}


class DeadLetterTopic:
    """At least once: after a crash between confirmation and commit, messages are dead-lettered again."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        timeout: float = TIMEOUT,
        producer: Callable[..., Producer] = Producer,
        admin: Callable[[dict[str, Any]], AdminClient] = AdminClient,
    ) -> None:
        self._kafka = settings
        self._topic = settings.dead_letter_topic
        self._producer = ConfirmedProducer(settings, timeout=timeout, producer=producer)
        self._admin = admin
        self.unavailable_reason: str | None = self._describe("not checked yet")
        """Why the topic has not been found; None once it has been. Safe to read from any thread."""

    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when Kafka has confirmed a dead letter for each. Raises DeadLetterError for those it has not."""
        dead_letters = [dead_letter_of(rejection) for rejection in rejections]
        failures = dict(self._producer.deliver([self._producer_record(each) for each in dead_letters]))
        self._send_smaller(dead_letters, failures)
        if failures:
            raise self._error(failures)
        if rejections:
            self.unavailable_reason = None

    def look_up(self) -> None:
        """Look for the topic, unless it was found before; `unavailable_reason` has the result."""
        if self.unavailable_reason is not None:
            error = self._producer.topic_error(self._topic, LOOK_UP_TIMEOUT)
            self.unavailable_reason = None if error is None else self._describe(self._explain(error))

    def check(self, topics: Sequence[str], timeout: float = CHECK_TIMEOUT) -> list[CheckResult]:
        """Whether the topic exists, keeps dead letters, and accepts one for every message of these topics."""
        admin = self._admin({**self._kafka.client_settings, "log_level": 2})  # its errors are in the results
        return list(topic_check.check(admin, self._topic, topics, timeout))

    def close(self) -> None:
        self._producer.close()

    def _producer_record(self, dead_letter: DeadLetter) -> ProducerRecord:
        return ProducerRecord(self._topic, *dead_letter)

    def _send_smaller(self, dead_letters: Sequence[DeadLetter], failures: dict[int, KafkaError]) -> None:
        """Sends those that were too large again, alone and without the stack trace: the limit applies to a batch."""
        for index in [index for index, error in failures.items() if _is_too_large(error)]:
            errors = self._producer.deliver([self._producer_record(dead_letters[index].without_stacktrace())])
            if not errors:
                del failures[index]
            elif not _is_too_large(errors[0]):
                break  # the broker has become unavailable: the caller retries later

    def _error(self, failures: dict[int, KafkaError]) -> DeadLetterError:
        error = next(iter(failures.values()))
        cause = error.name().strip("_").lower()
        return DeadLetterError(cause, self._describe(self._explain(error)), sorted(failures))

    def _explain(self, error: KafkaError) -> str:
        return f"{self._producer.explain(error)}{_HINTS.get(error.code(), '')}"

    def _describe(self, reason: str) -> str:
        return f"dead-letter topic {self._topic}: {reason}"


def _is_too_large(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.MSG_SIZE_TOO_LARGE)
