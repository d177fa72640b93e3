"""DataProducer: its public methods and its main loop, with a fake Kafka."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from msgspec import convert
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from local.broker import EmbeddedBroker
from src.data_generator import DataGenerator
from src.delivery.ledger import MAX_MESSAGES
from src.message_sources import GeneratedMessages
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import UndeliveredStoreError
from src.model.message import ProducerRecord
from src.producer import LIVENESS_TIMEOUT, DataProducer
from src.settings import MetricsSettings, Settings
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.resender import BATCH_SIZE
from src.utils.health_server import CannotServe
from tests.fakes import FakeClock, FakePublisher, record, records, undelivered_keys
from tests.health import get
from tests.topics import first_records

SERVICE = Path(__file__).resolve().parent.parent


def settings(folder: Path, on_outage: str = "spool", **kafka: Any) -> Settings:
    return convert(
        {
            "kafka": kafka,
            "producer": {
                "on_outage": on_outage,
                "undelivered_dir": str(folder / "undelivered"),
                "max_retries": 1,
                "initial_retry_delay_ms": 100,
                "delivery_timeout_ms": 1000,
            },
            "metrics": {"port": 0},
        },
        Settings,
    )


class World:
    """A producer with a fake Kafka; the clock advances when the main loop waits."""

    def __init__(self, folder: Path, on_outage: str = "spool") -> None:
        self.folder = folder / "undelivered"
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.settings = settings(folder, on_outage)
        self.producer = DataProducer(
            settings=self.settings,
            publisher=self.publisher,
            registry=self.registry,
            clock=self.clock,
            stop=self.stop,
        )

    def stop_at(self, seconds: float) -> None:
        end = self.clock.now + seconds
        self.publisher.on_poll = lambda: self.stop.set() if self.clock.now >= end else None

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with world.producer:
        yield world


# -- public methods


def test_generate_data_returns_key_value_headers_triples(world: World) -> None:
    messages = world.producer.generate_data(3)

    assert [key for key, _, _ in messages] == [value["id"] for _, value, _ in messages]
    assert len(messages) == 3


def test_send_message_is_true_for_a_delivered_message(world: World) -> None:
    sent = world.producer.send_message("k", {"id": "k"}, {"h": "v"})

    assert sent is True
    assert world.publisher.delivered == [ProducerRecord(b"k", b'{"id":"k"}', [("h", b"v")])]


def test_send_message_is_false_for_an_undelivered_message_which_is_stored(world: World) -> None:
    world.publisher.fail("k", "no", "no")

    sent = world.producer.send_message("k", {"id": "k"}, None)

    assert sent is False
    assert undelivered_keys(world.folder) == ["k"]


def test_send_batch_returns_the_number_of_delivered_messages(world: World) -> None:
    world.publisher.fail("1", "no", "no")

    count = world.producer.send_batch([(str(number), {"id": str(number)}, None) for number in range(3)])

    assert count == 2


def test_a_message_that_is_not_json_is_not_sent_and_the_others_are(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    count = world.producer.send_batch([("a", {}, None), ("b", {"x": object()}, None), ("c", {}, None)])

    assert count == 2
    assert "invalid message not sent" in caplog.messages


def test_an_invalid_header_affects_only_its_own_message(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with DataProducer(settings=settings(tmp_path, bootstrap_servers=broker.address)) as producer:
        headers: Any = {"n": 5}

        count = producer.send_batch([("a", {}, None), ("b", {}, headers), ("c", {}, None)])

        assert count == 2
        assert producer._delivery.ledger.in_flight == 0
    assert [message.key for message in first_records(broker.address, 2)] == [b"a", b"c"]


def test_an_empty_batch_sends_nothing(world: World) -> None:
    assert world.producer.send_batch([]) == 0
    assert world.publisher.sizes == []


# -- the main loop


def test_the_rate_is_100_000_per_hour_over_ten_minutes(world: World) -> None:
    world.stop_at(600)

    world.producer.run(interval=3.6, batch_size=100)

    assert len(world.publisher.delivered) == pytest.approx(100_000 / 6, rel=0.005)


def test_an_unresponsive_broker_does_not_slow_the_rate(world: World) -> None:
    world.publisher.silent = True
    world.stop_at(20)

    world.producer.run(interval=1.0, batch_size=1)

    assert len(world.publisher.sizes) == pytest.approx(20, abs=1)


def test_the_first_log_line_states_the_rate(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.stop_at(1)

    with caplog.at_level("INFO"):
        world.producer.run(interval=3.6, batch_size=100)

    first = caplog.records[0]
    assert first.getMessage() == "producer started"
    assert first.__dict__["rate"] == "100 messages every 3.6 s, 27.8 per second, 100,000 per hour"


def test_a_run_closes_the_publisher(world: World) -> None:
    world.stop.set()

    world.producer.run()

    assert world.publisher.closed


def test_a_run_writes_all_messages_before_it_closes_the_publisher(world: World) -> None:
    others = UndeliveredFolder(world.folder, "data-topic", host="dead")
    others.append(
        [DeliveryFailure(record(str(number)), Fault.TRANSIENT, "broker down") for number in range(5 * BATCH_SIZE)]
    )
    at_the_close: list[int] = []
    world.publisher.on_close = lambda: at_the_close.append(len(undelivered_keys(world.folder)))
    world.stop_at(1)

    world.producer.run(interval=1.0, batch_size=1)

    assert at_the_close == [len(undelivered_keys(world.folder))]
    assert 0 < at_the_close[0] < 5 * BATCH_SIZE


def test_a_run_that_cannot_store_its_messages_still_closes_the_publisher(world: World) -> None:
    world.publisher.silent = True
    world.publisher.unavailable_reason = "broker down"
    world.stop_at(1)
    world.folder.rmdir()

    with pytest.raises(UndeliveredStoreError):
        world.producer.run(interval=1.0, batch_size=1)
    world.folder.mkdir()

    assert world.publisher.closed


def test_a_run_without_a_broker_stores_everything_it_generated(world: World) -> None:
    world.publisher.silent = True
    world.publisher.unavailable_reason = "broker down"
    world.stop_at(5)

    world.producer.run(interval=1.0, batch_size=10)

    generated = sum(world.publisher.sizes)
    assert generated > 0
    assert len(undelivered_keys(world.folder)) == generated
    assert world.value("producer_messages_total", result="failed") == generated
    assert world.value("producer_undelivered_messages") == generated


def test_a_given_number_of_messages_is_sent_completely(world: World) -> None:
    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 250), interval=1.0, batch_size=100)

    assert complete
    assert world.publisher.sizes == [100, 100, 50]


def outage(world: World, seconds: float) -> None:
    """For so many seconds every delivery fails."""
    end = world.clock.now + seconds

    def end_outage() -> None:
        if world.clock.now >= end:
            world.publisher.failing, world.publisher.unavailable_reason = None, None

    world.publisher.failing = "not acknowledged within 1 s"
    world.publisher.on_poll = end_outage


def test_with_spool_the_rate_continues_in_an_outage_and_all_messages_are_delivered_afterwards(world: World) -> None:
    outage(world, 30)

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 500), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 500
    assert (world.producer.delivered, world.producer.undelivered) == (500, 0)
    assert world.value("producer_messages_total", result="failed") != 0
    assert world.value("producer_undelivered_messages") == 0
    assert list(world.folder.iterdir()) == []


def test_a_finite_run_resends_its_own_undelivered_messages_before_it_ends(world: World) -> None:
    outage(world, 8)

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 100), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 100


def test_with_wait_no_message_fails_in_an_outage_and_all_are_delivered_afterwards(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    outage(world, 600)

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 500), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 500
    assert world.value("producer_messages_total", result="failed") == 0


def test_with_wait_no_new_messages_are_accepted_at_the_limit_and_readiness_fails(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    world.publisher.silent = True
    world.publisher.unavailable_reason = "broker down"
    healthy: list[float | None] = []
    end = world.clock.now + 60

    def observe() -> None:
        if world.clock.now >= end:
            healthy.append(world.value("producer_healthy"))
            world.stop.set()

    world.publisher.on_poll = observe

    world.producer.run(interval=0, batch_size=10_000)

    assert sum(world.publisher.sizes) == MAX_MESSAGES
    assert healthy[0] == 0
    assert len(undelivered_keys(world.folder)) == MAX_MESSAGES


def test_a_finite_run_does_not_wait_for_an_unavailable_kafka(world: World) -> None:
    world.publisher.failing = "not acknowledged within 1 s"

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 20), interval=1.0, batch_size=10)

    assert not complete
    assert (world.producer.delivered, world.producer.undelivered) == (0, 20)
    assert len(undelivered_keys(world.folder)) == 20


def test_a_finite_run_does_not_wait_for_undelivered_messages_of_other_processes(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    others = UndeliveredFolder(world.folder, "data-topic", host="dead")
    others.append([DeliveryFailure(each, Fault.TRANSIENT, "broker down") for each in records(3000)])
    for number in range(3000):
        world.publisher.fail(str(number), *["broker down"] * 1000)
    started = world.clock.now

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 20), interval=1.0, batch_size=10)

    assert complete
    assert world.clock.now - started < 5
    assert (len(world.publisher.delivered), len(undelivered_keys(world.folder))) == (20, 3000)


def test_a_finite_run_resends_its_own_messages_before_those_of_other_processes(world: World) -> None:
    for _ in range(30):
        others = UndeliveredFolder(world.folder, "data-topic", host="a-dead")
        others.append([DeliveryFailure(record("theirs"), Fault.TRANSIENT, "broker down")] * BATCH_SIZE)
    outage(world, 8)
    started = world.clock.now

    complete = world.producer.send_from(GeneratedMessages(DataGenerator(), 100), interval=1.0, batch_size=10)

    assert complete
    assert world.clock.now - started < 8 + 20
    assert "theirs" in undelivered_keys(world.folder)


def test_a_finite_run_with_a_rejected_message_is_not_complete(world: World) -> None:
    generated = GeneratedMessages(DataGenerator(), 20)
    world.publisher.reject_next = "too large"

    complete = world.producer.send_from(generated, interval=1.0, batch_size=10)

    assert not complete
    assert (world.producer.delivered, world.producer.undelivered) == (19, 1)


def test_readiness_failures_include_the_number_of_undelivered_messages(world: World) -> None:
    world.publisher.failing = "broker down"
    world.producer.send_batch([("a", {}, None)])

    assert world.producer._readiness_failures() == ["broker down", "1 messages in the undelivered folder"]


def test_a_metrics_port_in_use_is_named(tmp_path: Path, world: World) -> None:
    with EmbeddedBroker({}) as other:
        port = int(other.address.rsplit(":", 1)[1])
        in_use = replace(world.settings, metrics=MetricsSettings(port=port))
        producer = DataProducer(settings=in_use, publisher=world.publisher)

        with pytest.raises(CannotServe, match=f"port {port}"):
            producer.run()


# -- health


def test_health_endpoints_report_the_failures(world: World, caplog: pytest.LogCaptureFixture) -> None:
    answers: dict[str, tuple[int, str]] = {}

    def ask() -> None:
        port = next(r.__dict__["port"] for r in caplog.records if r.getMessage() == "serving metrics and health")
        world.publisher.unavailable_reason = "broker down"
        world.clock.advance(LIVENESS_TIMEOUT + 1)
        for path in ("live", "ready", "metrics"):
            answers[path] = get(f"http://127.0.0.1:{port}/{path}")
        world.publisher.unavailable_reason = None
        world.stop.set()

    world.publisher.on_poll = ask
    with caplog.at_level("INFO"):
        world.producer.run(interval=0, batch_size=1)

    assert answers["live"][0] == 503
    assert "the main loop has stalled for" in answers["live"][1]
    assert (answers["ready"][0], "broker down" in answers["ready"][1]) == (503, True)
    assert answers["metrics"][0] == 200
    assert "producer_healthy 0.0" in answers["metrics"][1]


def test_every_metric_exists_from_the_start(world: World) -> None:
    assert world.value("producer_messages_total", result="delivered") == 0
    assert world.value("producer_messages_total", result="failed") == 0
    assert world.value("producer_retries_total") == 0
    assert world.value("producer_batch_size_messages_count") == 0
    assert world.value("producer_send_latency_seconds_count") == 0
    assert world.value("producer_queue_messages") == 0
    assert world.value("producer_undelivered_messages") == 0
    assert world.value("producer_healthy") == 1
