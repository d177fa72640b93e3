"""Parks messages that can never be stored, in a topic of their own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource

from src.dead_letters.letter import HEADROOM, Letter, letter
from src.kafka.confirmed_producer import TIMEOUT, ConfirmedProducer, ProducerRecord
from src.model.check_result import CheckResult
from src.model.errors import DeadLetterError
from src.model.record import Rejection
from src.settings import KafkaSettings

CHECK_TIMEOUT = 5.0  # seconds that each question of `check` may take

_HINTS = {
    KafkaError.INVALID_RECORD: "; a compacted topic takes no record without a key: its cleanup.policy must be delete",
    KafkaError.MSG_SIZE_TOO_LARGE: "; raise its max.message.bytes above the data topic's",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "; make the topic, or set KAFKA_DEAD_LETTER_TOPIC",
    KafkaError._UNKNOWN_TOPIC: "; make the topic, or set KAFKA_DEAD_LETTER_TOPIC",
}


class DeadLetterTopic:
    """At least once: a crash between parking and commit parks again."""

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
        self._delivery = ConfirmedProducer(settings, timeout=timeout, producer=producer)
        self._admin = admin

    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when Kafka has confirmed a letter for each. Raises DeadLetterError for those it has not."""
        letters = [letter(rejection) for rejection in rejections]
        failures = dict(self._delivery.deliver([self._parcel(letter) for letter in letters]))
        self._send_smaller(letters, failures)
        if failures:
            raise self._error(failures)

    def check(self, timeout: float = CHECK_TIMEOUT) -> list[CheckResult]:
        """For people who want to know before they start: what was asked, whether all is well, and a sentence."""
        return list(self._answers(timeout))

    def close(self) -> None:
        self._delivery.close()

    def _parcel(self, letter: Letter) -> ProducerRecord:
        return ProducerRecord(self._topic, letter.key, letter.value, letter.headers)

    def _send_smaller(self, letters: Sequence[Letter], failures: dict[int, KafkaError]) -> None:
        """What was too large goes again, alone and without its trace: the limit is for all that travels together."""
        for position in [position for position, error in failures.items() if _is_too_large(error)]:
            again = self._delivery.deliver([self._parcel(letters[position].without_trace())])
            if not again:
                del failures[position]
            elif not _is_too_large(again[0]):
                break  # the broker went away: the caller tries again later

    def _error(self, failures: dict[int, KafkaError]) -> DeadLetterError:
        error = next(iter(failures.values()))
        text = f"dead-letter topic {self._topic}: {self._delivery.explain(error)}{_HINTS.get(error.code(), '')}"
        return DeadLetterError(error.name().strip("_").lower(), text, sorted(failures))

    # -- before the start

    def _answers(self, timeout: float) -> Iterator[CheckResult]:
        # it says nothing of its troubles, which the answers tell
        admin = self._admin({**self._kafka.client_settings, "log_level": 2})
        try:
            topic = admin.list_topics(timeout=timeout).topics.get(self._topic)
        except KafkaException as error:
            yield CheckResult("dead-letter topic", False, f"{self._topic}: not told: {error.args[0].str()}")
            return
        if topic is None or topic.error is not None or not topic.partitions:
            yield CheckResult(
                "dead-letter topic", False, f"{self._topic} is not there; make it, or set KAFKA_DEAD_LETTER_TOPIC"
            )
            return
        yield CheckResult("dead-letter topic", True, f"{self._topic} has {len(topic.partitions)} partition(s)")
        yield from self._fitness(_topic_settings(admin, (self._topic, self._kafka.topic), timeout))

    def _fitness(self, told: dict[str, dict[str, str]]) -> Iterator[CheckResult]:
        letters, messages = told.get(self._topic), told.get(self._kafka.topic)
        if letters is None:
            yield CheckResult("dead letters stay", True, f"the settings of {self._topic} are not told by this broker")
            return
        yield _keeps(letters)
        if messages is not None:
            yield _fits(int(letters["max.message.bytes"]), int(messages["max.message.bytes"]))


def _is_too_large(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.MSG_SIZE_TOO_LARGE)


def _topic_settings(admin: AdminClient, topics: Sequence[str], timeout: float) -> dict[str, dict[str, str]]:
    """The settings of each topic whose settings the broker tells."""
    resources = [ConfigResource("topic", topic) for topic in topics]
    told: dict[str, dict[str, str]] = {}
    for resource, answer in admin.describe_configs(resources, request_timeout=timeout).items():
        try:
            told[resource.name] = {name: entry.value or "" for name, entry in answer.result(2 * timeout).items()}
        except (KafkaException, TimeoutError):
            continue
    return told


def _keeps(settings: dict[str, str]) -> CheckResult:
    policy = settings["cleanup.policy"]
    if "compact" in policy:
        text = f"cleanup.policy is {policy}: letters without key are refused, and of one key the last alone is kept"
        return CheckResult("dead letters stay", False, f"{text}; set it to delete")
    return CheckResult(
        "dead letters stay", True, f"cleanup.policy is {policy}, retention.ms {settings['retention.ms']}"
    )


def _fits(letters: int, messages: int) -> CheckResult:
    text = f"max.message.bytes is {letters:,}, the data topic's {messages:,}"
    if letters < messages + HEADROOM:
        return CheckResult("dead letters fit", False, f"{text}; set it to {messages + 4 * HEADROOM} or more")
    return CheckResult("dead letters fit", True, text)
