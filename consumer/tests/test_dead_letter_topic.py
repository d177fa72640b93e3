"""Dead letters are confirmed by Kafka: on the embedded broker, and with a client that fails as scripted."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from local.broker import EmbeddedBroker
from src.dead_letters.dead_letter import dead_letter_of, original_headers, original_position
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.confirmed_producer import ConfirmedProducer, ProducerRecord
from src.kafka.topic_reader import TopicReader
from src.model.check_result import CheckResult
from src.model.errors import DeadLetterError
from src.model.record import Record, Rejection
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings, Secret
from tests.test_dead_letter import HEADERS, rejection

PRODUCE = 0  # API key of the request
SETTINGS = KafkaSettings(bootstrap_servers="127.0.0.1:1")
SHORT = 0.5  # seconds


def broken(offset: int, value: bytes | None = b"{", **fields: Any) -> Rejection:
    headers = fields.pop("headers", HEADERS)
    return rejection(headers, offset=offset, value=value, **fields)


# -- on the embedded broker


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"unused": 1}) as broker:
        yield broker


@pytest.fixture
def settings(broker: EmbeddedBroker) -> KafkaSettings:
    """Topics of this test only; the first message creates them."""
    topic = f"t{uuid4().hex}"
    return KafkaSettings(
        bootstrap_servers=broker.address,
        topic=topic,
        dead_letter_topic=f"{topic}.dlq",
        client=ClientSettings({"fetch.wait.max.ms": 20, "reconnect.backoff.max.ms": 100}),
    )


def dead_letters_in(settings: KafkaSettings) -> list[Record]:
    topic = settings.dead_letter_topic
    with TopicReader(settings) as reader:
        records = list(reader.read(topic, reader.offset_ranges(topic, reader.partitions(topic))))
    return sorted(records, key=lambda record: str(original_position(record.headers)))


def original_offsets(settings: KafkaSettings) -> set[int]:
    positions = (original_position(record.headers) for record in dead_letters_in(settings))
    return {position.offset for position in positions if position}


def test_every_dead_letter_is_in_the_topic_when_send_returns(settings: KafkaSettings) -> None:
    rejections = [broken(1), broken(2, key=None, value=None, headers=()), broken(3, b"", key=b"")]

    DeadLetterTopic(settings).send(rejections)

    records = dead_letters_in(settings)
    assert [(record.key, record.value) for record in records] == [(b"\x00key", b"{"), (None, None), (b"", b"")]
    assert [original_headers(record.headers) for record in records] == [HEADERS, (), HEADERS]
    assert [tuple(record.headers) for record in records] == [
        dead_letter_of(rejection).headers for rejection in rejections
    ]


def test_a_dead_letter_has_the_current_time_as_timestamp(settings: KafkaSettings) -> None:
    DeadLetterTopic(settings).send([broken(1, timestamp=0)])

    (record,) = dead_letters_in(settings)
    assert (record.timestamp or 0) > 1_700_000_000_000


@pytest.mark.parametrize("size", [990_000, 999_900, 1_040_000])
def test_a_message_just_below_the_size_limit_is_not_truncated(settings: KafkaSettings, size: int) -> None:
    value = os.urandom(size)

    DeadLetterTopic(settings).send([broken(1, value)])

    (record,) = dead_letters_in(settings)
    assert record.value == value


def test_a_header_name_that_the_client_cannot_send_is_restored(settings: KafkaSettings) -> None:
    headers = (("caf\udce9", b"1"), ("nul \0 in it", b"2"), ("é", b"3"), ("base64:YQ==", b"4"))

    DeadLetterTopic(settings).send([broken(1, headers=headers)])

    (record,) = dead_letters_in(settings)
    assert [name for name, _ in record.headers][:4] == [
        "base64:Y2Fm6Q==",
        "base64:bnVsIAAgaW4gaXQ=",
        "é",
        "base64:YQ==",
    ]
    assert original_headers(record.headers) == headers


def test_unconfirmed_dead_letters_are_reported_and_the_others_are_in_the_topic(
    broker: EmbeddedBroker, settings: KafkaSettings
) -> None:
    dead_letters = DeadLetterTopic(settings)
    dead_letters.send([broken(0)])
    broker.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with pytest.raises(DeadLetterError, match=settings.dead_letter_topic) as caught:
        dead_letters.send([broken(1), broken(2)])

    assert caught.value.cause == "topic_authorization_failed"
    assert str(caught.value).endswith("; the user needs an ACL with Write")
    assert original_offsets(settings) == {0, 1, 2} - {1 + index for index in caught.value.unconfirmed}
    assert caught.value.unconfirmed


def test_an_unavailable_broker_is_an_error_after_the_timeout() -> None:
    dead_letters = DeadLetterTopic(SETTINGS, timeout=SHORT)

    with pytest.raises(DeadLetterError, match="Connect to") as caught:
        dead_letters.send([broken(1), broken(2)])

    assert caught.value.cause == "msg_timed_out"
    assert caught.value.unconfirmed == [0, 1]
    dead_letters.close()


def test_an_unreachable_broker_is_why_the_topic_is_not_found() -> None:
    dead_letters = DeadLetterTopic(SETTINGS)

    dead_letters.look_up()

    reason = dead_letters.unavailable_reason or ""
    assert reason.startswith("dead-letter topic data-topic.dlq: ")
    assert "Connect to" in reason
    dead_letters.close()


def test_after_an_outage_the_same_object_sends_again(broker: EmbeddedBroker, settings: KafkaSettings) -> None:
    dead_letters = DeadLetterTopic(settings, timeout=SHORT)
    broker.go_down()
    with pytest.raises(DeadLetterError):
        dead_letters.send([broken(1)])

    broker.come_up()
    sent = any(sends(dead_letters, broken(2)) for _ in range(20))

    assert sent
    assert 2 in original_offsets(settings)


def sends(dead_letters: DeadLetterTopic, rejection: Rejection) -> bool:
    try:
        dead_letters.send([rejection])
    except DeadLetterError:
        return False
    return True


def test_sending_nothing_succeeds() -> None:
    DeadLetterTopic(SETTINGS, timeout=SHORT).send([])


# -- with a client that fails as scripted


@dataclass
class ScriptedProducer:
    """Confirms everything except what its script says: errors by the length of the value, one per attempt."""

    settings: dict[str, Any]
    reported: dict[int, list[KafkaError]] = field(default_factory=dict)
    raised: dict[int, list[Exception]] = field(default_factory=dict)
    times_out: bool = False
    reports_nothing: bool = False
    attempts: list[tuple[int, int]] = field(default_factory=list)
    purged: int = 0
    credentials: list[tuple[str, str]] = field(default_factory=list)
    _unreported: list[Callable[[], None]] = field(default_factory=list)

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, *, on_delivery: Any, headers: Any) -> None:
        self.attempts.append((len(value), len(headers)))
        if self.raised.get(len(value)):
            raise self.raised[len(value)].pop(0)
        errors = self.reported.get(len(value))
        error = errors.pop(0) if errors else None
        self._unreported.append(lambda: on_delivery(error, None))

    def flush(self, timeout: float) -> int:
        if self.times_out:
            return len(self._unreported)
        unreported, self._unreported = self._unreported, []
        for report in () if self.reports_nothing else unreported:
            report()
        return 0

    def purge(self) -> None:
        self.purged += 1
        self.times_out = False

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self.credentials.append((username, password))


class Factory:
    """Creates scripted producers."""

    def __init__(self, **script: Any) -> None:
        self.script = script
        self.created: list[ScriptedProducer] = []

    def __call__(self, settings: dict[str, Any], *, logger: logging.Logger) -> Any:
        self.created.append(ScriptedProducer(settings, **self.script))
        return self.created[-1]


def too_large() -> KafkaError:
    return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def values(*lengths: int) -> list[Rejection]:
    return [broken(length, b"x" * length) for length in lengths]


def test_a_dead_letter_that_is_too_large_is_sent_again_alone_and_without_its_stack_trace() -> None:
    factory = Factory(reported={5: [too_large()]})

    DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 6))

    headers = len(dead_letter_of(broken(1)).headers)
    assert factory.created[0].attempts == [(4, headers), (5, headers), (6, headers), (5, headers - 1)]


def test_a_dead_letter_that_is_too_large_for_the_client_is_sent_again_too() -> None:
    factory = Factory(raised={5: [KafkaException(too_large())]})

    DeadLetterTopic(SETTINGS, producer=factory).send(values(5))

    assert len(factory.created[0].attempts) == 2


def test_a_dead_letter_that_is_still_too_large_is_unconfirmed_with_a_hint() -> None:
    factory = Factory(reported={5: [too_large()] * 9, 7: [too_large()]})

    with pytest.raises(DeadLetterError, match=r"max\.message\.bytes") as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 7))

    assert caught.value.cause == "msg_size_too_large"
    assert caught.value.unconfirmed == [1]


def test_an_outage_ends_the_sending_of_smaller_dead_letters() -> None:
    timed_out = KafkaError(KafkaError._MSG_TIMED_OUT)
    factory = Factory(reported={5: [too_large(), timed_out], 6: [too_large()]})

    with pytest.raises(DeadLetterError) as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(5, 6))

    assert caught.value.unconfirmed == [0, 1]
    assert len(factory.created[0].attempts) == 3


def test_the_error_of_a_compacted_topic_has_a_hint() -> None:
    factory = Factory(reported={5: [KafkaError(KafkaError.INVALID_RECORD)]})

    with pytest.raises(DeadLetterError, match=r"set its cleanup\.policy to delete") as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(5))

    assert caught.value.cause == "invalid_record"


def test_a_full_queue_leaves_dead_letters_unconfirmed() -> None:
    factory = Factory(raised={5: [BufferError("Local: Queue full")]})

    with pytest.raises(DeadLetterError) as caught:
        DeadLetterTopic(SETTINGS, producer=factory).send(values(4, 5, 6))

    assert (caught.value.cause, caught.value.unconfirmed) == ("queue_full", [1])


def test_messages_without_a_delivery_report_in_time_are_purged() -> None:
    factory = Factory(times_out=True, reported={5: [KafkaError(KafkaError._PURGE_INFLIGHT)]})

    failures = ConfirmedProducer(SETTINGS, producer=factory).deliver([ProducerRecord("t", None, b"12345", ())])

    assert [error.name() for error in failures.values()] == ["_PURGE_INFLIGHT"]
    assert factory.created[0].purged == 1


def test_a_message_without_a_delivery_report_is_not_confirmed() -> None:
    factory = Factory(reports_nothing=True)

    failures = ConfirmedProducer(SETTINGS, producer=factory).deliver([ProducerRecord("t", None, b"1", ())] * 2)

    assert {index: error.name() for index, error in failures.items()} == {0: "_TIMED_OUT", 1: "_TIMED_OUT"}


def test_a_client_with_a_fatal_error_is_replaced() -> None:
    factory = Factory(reported={5: [KafkaError(KafkaError._FATAL)]})
    dead_letters = DeadLetterTopic(SETTINGS, producer=factory)
    with pytest.raises(DeadLetterError):
        dead_letters.send(values(5))
    factory.script = {}

    dead_letters.send(values(5))

    assert [len(producer.attempts) for producer in factory.created] == [1, 1]


def test_the_client_gets_the_settings_except_those_for_consumers_and_reserved_ones() -> None:
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

    settings = factory.created[0].settings
    assert (settings["bootstrap.servers"], settings["security.protocol"]) == ("a:1,b:2", "ssl")
    assert (settings["acks"], settings["enable.idempotence"], settings["message.timeout.ms"]) == ("all", True, 3000)
    assert settings["compression.type"] == "gzip"
    assert not {"fetch.min.bytes", "session.timeout.ms"} & settings.keys()


def test_after_a_failed_login_the_renewed_password_is_used(tmp_path: Path) -> None:
    file = tmp_path / "password"
    client = ClientSettings({"sasl.username": "user", "sasl.password": Secret("first").in_file(file)})
    factory = Factory()
    dead_letters = DeadLetterTopic(KafkaSettings(client=client), producer=factory)
    file.write_text("second")

    factory.created[0].settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION))
    assert factory.created[0].credentials == []  # in a callback the client must not be called
    dead_letters.send(values(1))

    assert factory.created[0].credentials == [("user", "second")]


class RefusedProducer(ScriptedProducer):
    """Its login is refused, which it reports while it is polled."""

    def list_topics(self, _topic: str, _timeout: float) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no broker"))

    def poll(self, _timeout: float) -> None:
        self.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION))


def test_a_login_that_is_refused_before_the_first_dead_letter_uses_the_renewed_password_too(tmp_path: Path) -> None:
    file = tmp_path / "password"
    client = ClientSettings({"sasl.username": "user", "sasl.password": Secret("first").in_file(file)})
    created: list[RefusedProducer] = []

    def new_producer(settings: dict[str, Any], *, logger: logging.Logger) -> Any:
        created.append(RefusedProducer(settings))
        return created[-1]

    producer = ConfirmedProducer(KafkaSettings(client=client), producer=new_producer)
    file.write_text("second")

    errors = [producer.topic_error("data-topic.dlq", SHORT) for _ in range(2)]

    assert all(error is not None for error in errors)
    assert created[0].credentials == [("user", "second")]


def test_an_unknown_client_setting_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.client: .*no\.such\.key"):
        DeadLetterTopic(KafkaSettings(client=ClientSettings({"no.such.key": 1})))


def test_the_client_does_not_warn_about_consumer_settings(caplog: pytest.LogCaptureFixture) -> None:
    client = ClientSettings({"fetch.min.bytes": 1, "max.poll.interval.ms": 60_000})
    dead_letters = DeadLetterTopic(KafkaSettings(client=client, bootstrap_servers="127.0.0.1:1"), timeout=SHORT)

    with pytest.raises(DeadLetterError):
        dead_letters.send([broken(1)])

    assert not [line for line in caplog.messages if "property" in line]


# -- before the start


class ScriptedAdmin:
    """A cluster with these topics and configurations; an exception is raised."""

    def __init__(
        self, topics: Mapping[str, int] | Exception, configs: Mapping[str, Mapping[str, str] | Exception]
    ) -> None:
        self._topics = topics
        self._configs = configs
        self.operations: Sequence[AclOperation] | Exception = [AclOperation.WRITE]

    def list_topics(self, timeout: float) -> Any:
        if isinstance(self._topics, Exception):
            raise self._topics
        topics = {
            name: SimpleNamespace(error=None, partitions=dict.fromkeys(range(number), SimpleNamespace(leader=1)))
            for name, number in self._topics.items()
        }
        return SimpleNamespace(topics=topics)

    def describe_topics(self, *_topics: object, **_options: object) -> dict[str, Future[Any]]:
        response: Future[Any] = Future()
        if isinstance(self.operations, Exception):
            response.set_exception(self.operations)
        else:
            response.set_result(SimpleNamespace(authorized_operations=self.operations))
        return {"data-topic.dlq": response}

    def describe_configs(self, resources: Sequence[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {resource: self._response(resource.name) for resource in resources}

    def _response(self, topic: str) -> Future[Any]:
        response: Future[Any] = Future()
        config = self._configs[topic]
        if isinstance(config, Exception):
            response.set_exception(config)
        else:
            response.set_result({name: SimpleNamespace(value=value) for name, value in config.items()})
        return response


def config(policy: str = "delete", size: int = 1_048_588) -> dict[str, str]:
    return {"cleanup.policy": policy, "max.message.bytes": str(size), "retention.ms": "1"}


NOT_AUTHORIZED = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not authorized"))
UNAVAILABLE = KafkaException(KafkaError(KafkaError._TIMED_OUT))


def check(topics: Mapping[str, int] | Exception, dead_letters: Any, data: Any) -> list[CheckResult]:
    admin: Any = ScriptedAdmin(topics, {"data-topic.dlq": dead_letters, "data-topic": data})
    return DeadLetterTopic(SETTINGS, producer=Factory(), admin=lambda _settings: admin).check([SETTINGS.topic], SHORT)


@pytest.mark.parametrize(
    ("topics", "dead_letters", "data", "ok", "text"),
    [
        ({"data-topic.dlq": 3}, config(size=1_114_124), config(), [True, True, True, True], "3 partition"),
        ({"data-topic.dlq": 3}, config(), config(), [True, True, True, False], "set it to 1114124"),
        (
            {"data-topic.dlq": 3},
            config("compact", 1_114_124),
            config(),
            [True, True, False, True],
            "cleanup.policy is compact",
        ),
        (
            {"data-topic.dlq": 3},
            config("delete,compact"),
            UNAVAILABLE,
            [True, True, False],
            "set cleanup.policy=delete",
        ),
        ({"data-topic.dlq": 3}, UNAVAILABLE, config(), [True, True, True], "takes DescribeConfigs"),
        ({"data-topic": 3}, config(), config(), [False], "does not exist"),
        ({"data-topic.dlq": 0}, config(), config(), [False], "does not exist"),
        (UNAVAILABLE, config(), config(), [False], "no metadata"),
    ],
)
def test_the_check_reports_what_would_prevent_dead_lettering(
    topics: Any, dead_letters: Any, data: Any, ok: list[bool], text: str
) -> None:
    results = check(topics, dead_letters, data)

    assert [result.ok for result in results] == ok
    assert text in " ".join(result.text for result in results)


@pytest.mark.parametrize(
    ("topics", "operations", "text"),
    [
        ({"data-topic": 3}, NOT_AUTHORIZED, "data-topic.dlq: no metadata: not authorized"),
        ({"data-topic.dlq": 3}, NOT_AUTHORIZED, "not authorized for Write on topic data-topic.dlq"),
        ({"data-topic.dlq": 3}, [AclOperation.DESCRIBE], "not authorized for Write on topic data-topic.dlq"),
    ],
)
def test_a_missing_permission_is_distinguished_from_a_missing_topic(topics: Any, operations: Any, text: str) -> None:
    admin: Any = ScriptedAdmin(topics, {"data-topic.dlq": config(size=1_114_124), "data-topic": config()})
    admin.operations = operations

    results = DeadLetterTopic(SETTINGS, producer=Factory(), admin=lambda _settings: admin).check(
        [SETTINGS.topic], SHORT
    )

    assert [text in result.text for result in results if not result.ok] == [True]


def test_a_broker_that_returns_no_configuration_passes(broker: EmbeddedBroker, settings: KafkaSettings) -> None:
    broker.create_topic(settings.dead_letter_topic, 1)

    results = DeadLetterTopic(settings).check([settings.topic], SHORT)

    assert [result.ok for result in results] == [True, True, True]
    assert "does not list authorized operations" in results[1].text
    assert "does not return" in results[-1].text
