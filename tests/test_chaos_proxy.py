"""The network that can be cut, before a real client and the embedded broker, and before a peer of few words."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest
from confluent_kafka import Consumer, Producer

from chaos.proxy import LARGE, Proxy, kafka_proxy, mongodb_proxy
from chaos.wires import FIND_COORDINATOR, METADATA, placed
from local.broker import EmbeddedBroker

TOPIC = "data-topic"
SMALL_REQUEST = b"ping"
LARGE_REQUEST = b"x" * LARGE


# -- Kafka's answers


def text(content: str) -> bytes:
    return len(content).to_bytes(2) + content.encode()


def compact(content: str) -> bytes:
    return bytes([len(content) + 1]) + content.encode()


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, signed=True)


HERE = ("127.0.0.1", 7)
CORRELATION = number(42)
ADDRESS = text("broker.example") + number(9092)
PLACED = text(HERE[0]) + number(HERE[1])
COMPACT_ADDRESS = compact("broker.example") + number(9092)
COMPACT_PLACED = compact(HERE[0]) + number(HERE[1])
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
    ("api", "version", "answer"),
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
def test_each_brokers_address_is_replaced_and_the_rest_is_the_same(api: int, version: int, answer: list[bytes]) -> None:
    replaced = {ADDRESS: PLACED, COMPACT_ADDRESS: COMPACT_PLACED}

    found = placed(api, version, CORRELATION + b"".join(answer), lambda _: HERE)

    assert found == CORRELATION + b"".join(replaced.get(piece, piece) for piece in answer)


def test_a_coordinator_that_is_not_there_has_no_address_to_replace() -> None:
    answer = CORRELATION + number(15, 2) + number(-1) + text("") + number(-1)

    assert placed(FIND_COORDINATOR, 0, answer, lambda _: HERE) == answer


# -- before a real client


@contextmanager
def proxied() -> Iterator[tuple[Proxy, Producer]]:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        host, _, port = broker.address.rpartition(":")
        with kafka_proxy((host, int(port))) as proxy:
            yield proxy, Producer({**client(proxy), "message.timeout.ms": 20_000, "linger.ms": 0})


def client(proxy: Proxy) -> dict[str, object]:
    settings = {"reconnect.backoff.max.ms": 100, "log_level": 0}
    return {"bootstrap.servers": "{}:{}".format(*proxy.address), **settings}


def test_a_client_stays_on_the_proxy_and_works_as_without_it() -> None:
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
def test_nothing_comes_through_until_it_is_mended_and_nothing_is_lost_by_it(fault: str) -> None:
    with proxied() as (proxy, producer):
        producer.produce(TOPIC, b"before")
        producer.flush(10)
        getattr(proxy, fault)()
        producer.produce(TOPIC, b"meanwhile")
        waiting = producer.flush(1)
        proxy.mend()

        assert waiting == 1
        assert producer.flush(15) == 0


# -- before a peer that counts


class Echo:
    """Answers each frame with the same frame, and keeps what it got."""

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
    """The next whole frame; None where the connection ends before."""
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


def test_a_bulk_that_is_cut_in_its_middle_has_not_reached_the_server() -> None:
    with echoing() as (proxy, echo, connection):
        done = proxy.cut_in_flight(answered=False)
        connection.sendall(framed(SMALL_REQUEST))
        small = received(connection)
        connection.sendall(framed(LARGE_REQUEST))

        assert small == framed(SMALL_REQUEST)
        assert received(connection) is None
        assert done.wait(5)
        assert echo.got == [framed(SMALL_REQUEST)]


def test_a_bulk_that_is_cut_before_its_answer_has_reached_the_server() -> None:
    with echoing() as (proxy, echo, connection):
        done = proxy.cut_in_flight(answered=True)
        connection.sendall(framed(LARGE_REQUEST))

        assert received(connection) is None
        assert done.wait(5)
        assert echo.got == [framed(LARGE_REQUEST)]


def test_after_a_cut_in_flight_new_connections_can_be_made() -> None:
    with echoing() as (proxy, _, connection):
        proxy.cut_in_flight(answered=True)
        connection.sendall(framed(LARGE_REQUEST))
        received(connection)

        with socket.create_connection(proxy.address, timeout=5) as again:
            again.sendall(framed(LARGE_REQUEST))
            assert received(again) == framed(LARGE_REQUEST)


def test_only_what_carries_messages_is_slow() -> None:
    with echoing() as (proxy, _, connection):
        proxy.slow(60)
        connection.settimeout(1)
        connection.sendall(framed(SMALL_REQUEST))
        small = received(connection)
        connection.sendall(framed(LARGE_REQUEST))

        assert small == framed(SMALL_REQUEST)
        assert received(connection) is None
