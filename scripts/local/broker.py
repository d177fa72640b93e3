"""The embedded broker: librdkafka's own test cluster, in this process, on real TCP.

For evaluation and tests. It keeps about 5 MiB per partition, in memory.
"""

import ctypes
from collections.abc import Mapping
from typing import Self

import confluent_kafka

RETENTION_BYTES = 5 * 1024 * 1024  # per partition; older messages are dropped silently
SESSION_TIMEOUT_MS = 6_000  # the least that Kafka accepts: a joining member stops the group for this long

_PRODUCER = 0
_BROKER = 1


class EmbeddedBroker:
    """A cluster of one broker and the given topics (name to number of partitions), until the `with` block ends."""

    def __init__(self, topics: Mapping[str, int], *, rebalance_delay_ms: int = 0) -> None:
        self._library = _librdkafka()
        quiet = self._library.rd_kafka_conf_new()  # else it logs that it has no broker to connect to
        self._library.rd_kafka_conf_set(quiet, b"log_level", b"0", None, 0)
        self._handle = self._library.rd_kafka_new(_PRODUCER, quiet, None, 0)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        self.delay_rebalances(rebalance_delay_ms)
        for topic, partitions in topics.items():
            self.create_topic(topic, partitions)

    @property
    def address(self) -> str:
        """host:port, for bootstrap.servers."""
        return bytes(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)).decode()

    def create_topic(self, topic: str, partitions: int) -> None:
        error = self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        if error:
            raise RuntimeError(f"cannot create topic {topic!r}: error {error}")

    def delay_rebalances(self, milliseconds: int) -> None:
        """How long the first member of a new group waits for others that start at the same time."""
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, milliseconds)

    def advertise(self, port: int) -> None:
        """Advertise this port of this machine in place of `address`."""
        self._library.rd_kafka_mock_broker_set_host_port(self._cluster, _BROKER, b"127.0.0.1", port)

    def go_down(self) -> None:
        """Close every connection and refuse new ones until `come_up`; the data stays."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER)

    def come_up(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER)

    def fail_next(self, api_key: int, *errors: int) -> None:
        """Return these error codes to the next requests with this API key, one each."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(errors), codes)

    def fail_topic(self, topic: str, error: int) -> None:
        """Return this error code for the topic in metadata and to producers, until it is 0."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    def close(self) -> None:
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
            self._cluster = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _librdkafka() -> ctypes.CDLL:
    """The library that the client has loaded: a symbol is looked up in what its extension module depends on."""
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_new", pointer, (pointer, number)),
        ("rd_kafka_mock_cluster_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_topic_create", number, (pointer, text, number, number)),
        ("rd_kafka_mock_topic_set_error", None, (pointer, text, number)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_host_port", number, (pointer, ctypes.c_int32, text, number)),
        ("rd_kafka_mock_broker_set_down", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_up", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_push_request_errors_array", None, (pointer, ctypes.c_int16, ctypes.c_size_t, pointer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
