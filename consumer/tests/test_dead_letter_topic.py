"""Parking is over when Kafka says so: on the embedded broker, and with a client that fails in chosen ways."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException

from local.broker import EmbeddedBroker
from src.dead_letters.letter import Origin, letter, own_headers, read_origin
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.confirmed_producer import ConfirmedProducer, ProducerRecord
from src.kafka.topic_reader import TopicReader
from src.model.check_result import CheckResult
from src.model.errors import DeadLetterError
from src.model.record import Record, Rejection
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings
from tests.test_dead_letter import AGENTS, rejection

PRODUCE = 0  # Kafka's number of the request
SETTINGS = KafkaSettings(bootstrap_servers="127.0.0.1:1")
SHORT = 0.5  # seconds


def broken(offset: int, value: bytes | None = b"{", **fields: Any) -> Rejection:
    headers = fields.pop("headers", AGENTS)
    return rejection(headers, offset=offset, value=value, **fields)


# -- on the embedded broker


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"unused": 1}) as broker:
        yield broker


@pytest.fixture
def settings(broker: EmbeddedBroker) -> KafkaSettings:
    """Topics of the test's own, made by whoever writes first."""
    topic = f"t{uuid4().hex}"
    return KafkaSettings(
        bootstrap_servers=broker.address,
        topic=topic,
        dead_letter_topic=f"{topic}.dlq",
        client=ClientSettings({"fetch.wait.max.ms": 20, "reconnect.backoff.max.ms": 100}),
    )


def parked(settings: KafkaSettings) -> list[Record]:
    topic = settings.dead_letter_topic
    with TopicReader(settings) as snapshot:
        records = list(snapshot.read(topic, snapshot.offset_ranges(topic, snapshot.partitions(topic))))
    return sorted(records, key=lambda record: str(read_origin(record.headers)))


def test_every_letter_is_in_the_topic_when_send_returns(settings: KafkaSettings) -> None:
    rejections = [broken(1), broken(2, key=None, value=None, headers=()), broken(3, b"", key=b"")]

    DeadLetterTopic(settings).send(rejections)

    letters = parked(settings)
    assert [(record.key, record.value) for record in letters] == [(b"\x00key", b"{"), (None, None), (b"", b"")]
    assert [own_headers(record.headers) for record in letters] == [AGENTS, (), AGENTS]
    assert [tuple(record.headers) for record in letters] == [letter(rejection).headers for rejection in rejections]


def test_a_letter_has_a_timestamp_of_now(settings: KafkaSettings) -> None:
    DeadLetterTopic(settings).send([broken(1, timestamp=0)])

    (record,) = parked(settings)
    assert (record.timestamp or 0) > 1_700_000_000_000


@pytest.mark.parametrize("size", [990_000, 999_900, 1_040_000])
def test_a_message_just_under_the_size_limit_fits_whole(settings: KafkaSettings, size: int) -> None:
    value = os.urandom(size)

    DeadLetterTopic(settings).send([broken(1, value)])

    (record,) = parked(settings)
    assert record.value == value


def test_a_header_name_that_the_client_cannot_send_comes_back_as_it_was(settings: KafkaSettings) -> None:
    headers = (("caf\udce9", b"1"), ("nul \0 in it", b"2"), ("é", b"3"), ("base64:YQ==", b"4"))

    DeadLetterTopic(settings).send([broken(1, headers=headers)])

    (record,) = parked(settings)
    assert [name for name, _ in record.headers][:4] == [
        "base64:Y2Fm6Q==",
        "base64:bnVsIAAgaW4gaXQ=",
        "é",
        "base64:YQ==",
    ]
    assert own_headers(record.headers) == headers


def test_what_was_not_confirmed_is_named_and_the_rest_is_there(broker: EmbeddedBroker, settings: KafkaSettings) -> None:
    dead_letters = DeadLetterTopic(settings)
    dead_letters.send([broken(0)])
    broker.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with pytest.raises(DeadLetterError, match=settings.dead_letter_topic) as caught:
        dead_letters.send([broken(1), broken(2)])

    assert caught.value.cause == "topic_authorization_failed"
    stored = {origin.offset for record in parked(settings) if (origin := read_origin(record.headers))}
    assert stored == {0, 1, 2} - {1 + position for position in caught.value.unconfirmed}
    assert caught.value.unconfirmed


def test_a_broker_that_is_away_costs_the_timeout_and_no_more() -> None:
    dead_letters = DeadLetterTopic(SETTINGS, timeout=SHORT)

    with pytest.raises(DeadLetterError, match="Connect to") as caught:
        dead_letters.send([broken(1), broken(2)])

    assert caught.value.cause == "msg_timed_out"
    assert caught.value.unconfirmed == [0, 1]
    dead_letters.close()


def test_after_an_outage_the_same_object_sends_again(broker: EmbeddedBroker, settings: KafkaSettings) -> None:
    dead_letters = DeadLetterTopic(settings, timeout=SHORT)
    broker.go_down()
    with pytest.raises(DeadLetterError):
        dead_letters.send([broken(1)])

    broker.come_up()
    sent = any(sends(dead_letters, broken(2)) for _ in range(20))

    assert sent
    assert Origin("data-topic", 2, 2) in {read_origin(record.headers) for record in parked(settings)}


def sends(dead_letters: DeadLetterTopic, rejection: Rejection) -> bool:
    try:
        dead_letters.send([rejection])
    except DeadLetterError:
        return False
    return True


def test_nothing_to_park_is_no_work() -> None:
    DeadLetterTopic(SETTINGS, timeout=SHORT).send([])


# -- with a client that fails in chosen ways


@dataclass
class ScriptedProducer:
    """Confirms everything but what its script says: by the length of a value, an error a try."""

    settings: dict[str, Any]
    reported: dict[int, list[KafkaError]] = field(default_factory=dict)
    raised: dict[int, list[Exception]] = field(default_factory=dict)
    silent: bool = False
    mute: bool = False
    tried: list[tuple[int, int]] = field(default_factory=list)
    purged: int = 0
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, *, on_delivery: Any, headers: Any) -> None:
        self.tried.append((len(value), len(headers)))
        if self.raised.get(len(value)):
            raise self.raised[len(value)].pop(0)
        errors = self.reported.get(len(value))
        error = errors.pop(0) if errors else None
        self._waiting.append(lambda: on_delivery(error, None))

    def flush(self, timeout: float) -> int:
        if self.silent:
            return len(self._waiting)
        waiting, self._waiting = self._waiting, []
        for report in () if self.mute else waiting:
            report()
        return 0

    def purge(self) -> None:
        self.purged += 1
        self.silent = False


class Factory:
    """Makes scripted producers, and keeps them to be looked at."""

    def __init__(self, **script: Any) -> None:
        self.script = script
        self.made: list[ScriptedProducer] = []

    def __call__(self, settings: dict[str, Any], *, logger: logging.Logger) -> Any:
        self.made.append(ScriptedProducer(settings, **self.script))
        return self.made[-1]


def too_large() -> KafkaError:
    return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def values(*lengths: int) -> list[Rejection]:
    return [broken(length, b"x" * length) for length in lengths]


def test_what_is_too_large_goes_alone_and_without_its_trace() -> None:
    factory = Factory(reported={5: [too_large()]})

    DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 6))

    headers = len(letter(broken(1)).headers)
    assert factory.made[0].tried == [(4, headers), (5, headers), (6, headers), (5, headers - 1)]


def test_what_the_client_itself_finds_too_large_is_treated_alike() -> None:
    factory = Factory(raised={5: [KafkaException(too_large())]})

    DeadLetterTopic(SETTINGS, producer=factory).send(values(5))

    assert len(factory.made[0].tried) == 2


def test_what_is_too_large_even_so_is_unconfirmed_and_the_mend_is_named() -> None:
    factory = Factory(reported={5: [too_large()] * 9, 7: [too_large()]})

    with pytest.raises(DeadLetterError, match=r"max\.message\.bytes") as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 7))

    assert caught.value.cause == "msg_size_too_large"
    assert caught.value.unconfirmed == [1]


def test_a_broker_that_goes_away_meanwhile_is_not_asked_letter_by_letter() -> None:
    away = KafkaError(KafkaError._MSG_TIMED_OUT)
    factory = Factory(reported={5: [too_large(), away], 6: [too_large()]})

    with pytest.raises(DeadLetterError) as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(5, 6))

    assert caught.value.unconfirmed == [0, 1]
    assert len(factory.made[0].tried) == 3


def test_a_compacted_topic_is_named_as_such() -> None:
    factory = Factory(reported={5: [KafkaError(KafkaError.INVALID_RECORD)]})

    with pytest.raises(DeadLetterError, match=r"cleanup\.policy must be delete") as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(5))

    assert caught.value.cause == "invalid_record"


def test_a_full_queue_leaves_the_rest_for_the_next_try() -> None:
    factory = Factory(raised={5: [BufferError("Local: Queue full")]})

    with pytest.raises(DeadLetterError) as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 6))

    assert (caught.value.cause, caught.value.unconfirmed) == ("queue_full", [1])


def test_what_is_not_reported_in_time_is_given_up_and_so_reported() -> None:
    factory = Factory(silent=True, reported={5: [KafkaError(KafkaError._PURGE_INFLIGHT)]})

    failures = ConfirmedProducer(SETTINGS, producer=factory).deliver([ProducerRecord("t", None, b"12345", ())])

    assert [error.name() for error in failures.values()] == ["_PURGE_INFLIGHT"]
    assert factory.made[0].purged == 1


def test_what_is_never_reported_is_not_confirmed() -> None:
    factory = Factory(mute=True)

    failures = ConfirmedProducer(SETTINGS, producer=factory).deliver([ProducerRecord("t", None, b"1", ())] * 2)

    assert {position: error.name() for position, error in failures.items()} == {0: "_TIMED_OUT", 1: "_TIMED_OUT"}


def test_a_client_that_would_never_send_again_is_replaced() -> None:
    factory = Factory(reported={5: [KafkaError(KafkaError._FATAL)]})
    dead_letters = DeadLetterTopic(SETTINGS, producer=factory)
    with pytest.raises(DeadLetterError):
        dead_letters.send(values(5))
    factory.script = {}

    dead_letters.send(values(5))

    assert [len(producer.tried) for producer in factory.made] == [1, 1]


def test_the_client_gets_the_operators_settings_but_none_of_a_consumers_and_none_against_the_promise() -> None:
    factory = Factory()
    client = ClientSettings(
        {
            "security.protocol": "ssl",
            "compression.type": "gzip",
            "fetch.min.bytes": 1,
            "session.timeout.ms": 6000,
            "acks": 1,
            "enable.idempotence": False,
            "message.timeout.ms": 0,
        }
    )

    DeadLetterTopic(KafkaSettings(client=client, bootstrap_servers=" a:1 , b:2,"), timeout=3, producer=factory)

    given = factory.made[0].settings
    assert (given["bootstrap.servers"], given["security.protocol"]) == ("a:1,b:2", "ssl")
    assert (given["acks"], given["enable.idempotence"], given["message.timeout.ms"]) == ("all", True, 3000)
    assert given["compression.type"] == "gzip"
    assert not {"fetch.min.bytes", "session.timeout.ms"} & given.keys()


def test_a_setting_that_the_client_refuses_is_wrong_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.client: .*no\.such\.key"):
        DeadLetterTopic(KafkaSettings(client=ClientSettings({"no.such.key": 1})))


def test_the_client_does_not_warn_of_what_is_the_consumers(caplog: pytest.LogCaptureFixture) -> None:
    consumers = ClientSettings({"fetch.min.bytes": 1, "max.poll.interval.ms": 60_000})
    dead_letters = DeadLetterTopic(KafkaSettings(client=consumers, bootstrap_servers="127.0.0.1:1"), timeout=SHORT)

    with pytest.raises(DeadLetterError):
        dead_letters.send([broken(1)])

    assert not [line for line in caplog.messages if "property" in line]


# -- before the start


class ScriptedAdmin:
    """A cluster with these topics and what it tells of their settings; an exception is raised."""

    def __init__(
        self, topics: Mapping[str, int] | Exception, told: Mapping[str, Mapping[str, str] | Exception]
    ) -> None:
        self._topics = topics
        self._told = told

    def list_topics(self, timeout: float) -> Any:
        if isinstance(self._topics, Exception):
            raise self._topics
        topics = {
            name: SimpleNamespace(error=None, partitions=dict.fromkeys(range(number)))
            for name, number in self._topics.items()
        }
        return SimpleNamespace(topics=topics)

    def describe_configs(self, resources: Sequence[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {resource: self._answer(resource.name) for resource in resources}

    def _answer(self, topic: str) -> Future[Any]:
        answer: Future[Any] = Future()
        told = self._told[topic]
        if isinstance(told, Exception):
            answer.set_exception(told)
        else:
            answer.set_result({name: SimpleNamespace(value=value) for name, value in told.items()})
        return answer


def kept(policy: str = "delete", size: int = 1_048_588) -> dict[str, str]:
    return {"cleanup.policy": policy, "max.message.bytes": str(size), "retention.ms": "1"}


UNTOLD = KafkaException(KafkaError(KafkaError._TIMED_OUT))


def answers(topics: Mapping[str, int] | Exception, letters: Any, messages: Any) -> list[CheckResult]:
    admin: Any = ScriptedAdmin(topics, {"data-topic.dlq": letters, "data-topic": messages})
    return DeadLetterTopic(SETTINGS, producer=Factory(), admin=lambda _settings: admin).check()


@pytest.mark.parametrize(
    ("topics", "letters", "messages", "fine", "text"),
    [
        ({"data-topic.dlq": 3}, kept(size=1_114_124), kept(), [True, True, True], "3 partition"),
        ({"data-topic.dlq": 3}, kept(), kept(), [True, True, False], "set it to 1114124"),
        ({"data-topic.dlq": 3}, kept("compact", 1_114_124), kept(), [True, False, True], "cleanup.policy is compact"),
        ({"data-topic.dlq": 3}, kept("delete,compact"), UNTOLD, [True, False], "set it to delete"),
        ({"data-topic.dlq": 3}, UNTOLD, kept(), [True, True], "not told"),
        ({"data-topic": 3}, kept(), kept(), [False], "not there"),
        ({"data-topic.dlq": 0}, kept(), kept(), [False], "not there"),
        (UNTOLD, kept(), kept(), [False], "not told"),
    ],
)
def test_the_check_says_what_would_hinder_parking(
    topics: Any, letters: Any, messages: Any, fine: list[bool], text: str
) -> None:
    found = answers(topics, letters, messages)

    assert [answer.ok for answer in found] == fine
    assert text in " ".join(answer.text for answer in found)


def test_a_broker_that_tells_no_settings_is_no_fault(broker: EmbeddedBroker, settings: KafkaSettings) -> None:
    broker.create_topic(settings.dead_letter_topic, 1)

    found = DeadLetterTopic(settings).check(timeout=SHORT)

    assert [answer.ok for answer in found] == [True, True]
    assert "not told" in found[-1].text
