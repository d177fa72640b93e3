"""The proxy between a real client and the embedded broker, and in front of a server that echoes."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest
from confluent_kafka import Consumer, Producer

from chaos.proxy import LARGE, Proxy, kafka_proxy, mongodb_proxy
from local.broker import EmbeddedBroker
from local.connectivity import host_port, kafka_addresses
from local.protocols import FIND_COORDINATOR, METADATA, replace_addresses

TOPIC = "data-topic"
SMALL_REQUEST = b"ping"
LARGE_REQUEST = b"x" * LARGE


# -- Kafka's responses


def text(content: str) -> bytes:
    return len(content).to_bytes(2) + content.encode()


def compact(content: str) -> bytes:
    return bytes([len(content) + 1]) + content.encode()


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, signed=True)


RELAY = ("127.0.0.1", 7)
CORRELATION = number(42)
ADDRESS = text("broker.example") + number(9092)
REPLACED = text(RELAY[0]) + number(RELAY[1])
COMPACT_ADDRESS = compact("broker.example") + number(9092)
COMPACT_REPLACED = compact(RELAY[0]) + number(RELAY[1])
NO_TAGS = b"\0"
ONE_TAG = b"\1\5\2ab"


NO_RACK = number(-1, 2)
NO_COMPACT_RACK = b"\0"
NO_ERROR = number(0, 2)
NO_THROTTLE = number(0)
NODE = number(3)
TWO, COMPACT_TWO = number(2), b"\3"
BROKER = [NODE, ADDRESS]
RACKED_BROKER = [*BROKER, NO_RACK]
COMPACT_BROKER = [NODE, COMPACT_ADDRESS, NO_COMPACT_RACK, ONE_TAG]
COORDINATOR = [compact("group"), NODE, COMPACT_ADDRESS, NO_ERROR, NO_COMPACT_RACK, NO_TAGS]


@pytest.mark.parametrize(
    ("api", "version", "response"),
    [
        (METADATA, 0, [TWO, *BROKER, *BROKER, b"topics"]),
        (METADATA, 1, [TWO, *RACKED_BROKER, *RACKED_BROKER, b"topics"]),
        (METADATA, 8, [NO_THROTTLE, TWO, NODE, ADDRESS, text("rack"), *RACKED_BROKER, b"topics"]),
        (METADATA, 9, [ONE_TAG, NO_THROTTLE, COMPACT_TWO, *COMPACT_BROKER, *COMPACT_BROKER, b"topics"]),
        (FIND_COORDINATOR, 0, [NO_ERROR, *BROKER]),
        (FIND_COORDINATOR, 1, [NO_THROTTLE, NO_ERROR, text("fine"), *BROKER]),
        (FIND_COORDINATOR, 3, [NO_TAGS, NO_THROTTLE, NO_ERROR, compact("fine"), NODE, COMPACT_ADDRESS, NO_TAGS]),
        (FIND_COORDINATOR, 4, [NO_TAGS, NO_THROTTLE, COMPACT_TWO, *COORDINATOR, *COORDINATOR, NO_TAGS]),
    ],
)
def test_every_broker_address_is_replaced_and_nothing_else(api: int, version: int, response: list[bytes]) -> None:
    replaced = {ADDRESS: REPLACED, COMPACT_ADDRESS: COMPACT_REPLACED}

    found = replace_addresses(api, version, CORRELATION + b"".join(response), lambda _: RELAY)

    assert found == CORRELATION + b"".join(replaced.get(piece, piece) for piece in response)


def test_a_missing_coordinator_has_no_address_to_replace() -> None:
    response = CORRELATION + number(15, 2) + number(-1) + text("") + number(-1)

    assert replace_addresses(FIND_COORDINATOR, 0, response, lambda _: RELAY) == response


# -- with a real client


@contextmanager
def proxied() -> Iterator[tuple[Proxy, Producer]]:
    with EmbeddedBroker({TOPIC: 1}) as broker, kafka_proxy(kafka_addresses(broker.address)[0]) as proxy:
        yield proxy, Producer({**client(proxy), "message.timeout.ms": 20_000, "linger.ms": 0})


def client(proxy: Proxy) -> dict[str, object]:
    settings = {"reconnect.backoff.max.ms": 100, "log_level": 0}
    return {"bootstrap.servers": host_port(proxy.address), **settings}


def test_a_client_works_through_the_proxy_and_stays_on_it() -> None:
    with proxied() as (proxy, producer):
        producer.produce(TOPIC, b"through")
        left = producer.flush(10)
        consumer = Consumer({**client(proxy), "group.id": "group", "auto.offset.reset": "earliest"})
        with closing(consumer):
            consumer.subscribe([TOPIC])
            message = consumer.poll(15)
            brokers = consumer.list_topics(timeout=5).brokers.values()

        assert left == 0
        assert message is not None
        assert message.value() == b"through"
        assert [broker.port for broker in brokers] == [proxy.address[1]]


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_nothing_passes_until_the_network_is_healed_and_nothing_is_lost(fault: str) -> None:
    with proxied() as (proxy, producer):
        producer.produce(TOPIC, b"before")
        producer.flush(10)
        getattr(proxy, fault)()
        producer.produce(TOPIC, b"meanwhile")
        waiting = producer.flush(1)
        proxy.heal()

        assert waiting == 1
        assert producer.flush(15) == 0


# -- with an echo server


class Echo:
    """Returns each frame, and keeps it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self._listening.getsockname()[1])

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while (frame := received(connection)) is not None:
                self.got.append(frame)
                connection.sendall(frame)


def framed(content: bytes) -> bytes:
    return (len(content) + 4).to_bytes(4, "little") + content


def received(connection: socket.socket) -> bytes | None:
    """The next complete frame; None if the connection is closed before."""
    content = b""
    while len(content) < 4 or len(content) < int.from_bytes(content[:4], "little"):
        try:
            more = connection.recv(65536)
        except OSError:
            return None
        if not more:
            return None
        content += more
    return content


@contextmanager
def echoing() -> Iterator[tuple[Proxy, Echo, socket.socket]]:
    with (
        closing(Echo()) as echo,
        mongodb_proxy(echo.address) as proxy,
        socket.create_connection(proxy.address, timeout=5) as connection,
    ):
        yield proxy, echo, connection


def test_a_bulk_that_is_cut_halfway_does_not_reach_the_server() -> None:
    with echoing() as (proxy, echo, connection):
        done = proxy.cut_in_flight(answered=False)
        connection.sendall(framed(SMALL_REQUEST))
        small = received(connection)
        connection.sendall(framed(LARGE_REQUEST))

        assert small == framed(SMALL_REQUEST)
        assert received(connection) is None
        assert done.wait(5)
        assert echo.got == [framed(SMALL_REQUEST)]


def test_a_bulk_that_is_cut_before_its_response_has_reached_the_server() -> None:
    with echoing() as (proxy, echo, connection):
        done = proxy.cut_in_flight(answered=True)
        connection.sendall(framed(LARGE_REQUEST))

        assert received(connection) is None
        assert done.wait(5)
        assert echo.got == [framed(LARGE_REQUEST)]


def test_after_a_cut_in_flight_new_connections_are_accepted() -> None:
    with echoing() as (proxy, _, connection):
        proxy.cut_in_flight(answered=True)
        connection.sendall(framed(LARGE_REQUEST))
        received(connection)

        with socket.create_connection(proxy.address, timeout=5) as again:
            again.sendall(framed(LARGE_REQUEST))
            assert received(again) == framed(LARGE_REQUEST)


def test_only_requests_that_carry_messages_are_slow() -> None:
    with echoing() as (proxy, _, connection):
        proxy.slow(60)
        connection.settimeout(1)
        connection.sendall(framed(SMALL_REQUEST))
        small = received(connection)
        connection.sendall(framed(LARGE_REQUEST))

        assert small == framed(SMALL_REQUEST)
        assert received(connection) is None
