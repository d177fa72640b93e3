"""Settings with their defaults and limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from src.utils.config import Variable, load
from src.utils.secret import ClientSettings
from src.utils.settings_check import require_files

VERSION = "1.0.0"
DEFAULT_FILE = Path(__file__).resolve().parent.parent / "config" / "config.json"

Topic = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z",
        description="the name of a topic: 1 to 249 letters, digits, `.`, `_` and `-`, and neither `.` nor `..`",
    ),
]
Port = Annotated[int, Meta(ge=0, le=65535)]
Servers = Annotated[
    str,
    Meta(
        pattern=r"^\s*[^\s,]+:\d+\s*(,\s*[^\s,]+:\d+\s*)*,?\s*\Z",
        description="host:port, or several of them with commas",
    ),
]

# librdkafka keys that the delivery guarantees depend on, each with the reason why it is reserved.
RESERVED = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "compression.type": "set kafka.compression_type",
    "compression.codec": "set kafka.compression_type",
    "acks": "a message counts as delivered once all in-sync replicas have it",
    "request.required.acks": "a message counts as delivered once all in-sync replicas have it",
    "enable.idempotence": "without idempotence a retry may write a message twice",
    "message.timeout.ms": "set producer.delivery_timeout_ms",
    "delivery.timeout.ms": "set producer.delivery_timeout_ms",
    "transactional.id": "the producer does not use transactions",
    "delivery.report.only.error": "every message needs a delivery report",
    "statistics.interval.ms": "the health check reads the client's statistics",
}


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of settings; an unknown key is an error."""


class KafkaSettings(Section, frozen=True):
    bootstrap_servers: Servers = "kafka:9092"
    topic: Topic = "data-topic"
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "snappy"
    client: ClientSettings = ClientSettings()
    """Further librdkafka keys, for example for TLS and SASL."""

    @property
    def servers(self) -> str:
        """The brokers, without whitespace and empty entries."""
        return ",".join(server for server in "".join(self.bootstrap_servers.split()).split(",") if server)

    @property
    def client_settings(self) -> dict[str, str | int | float | bool]:
        """The configuration of every librdkafka client of this service, with its secrets: do not log it."""
        return {**self.client.reveal(), "bootstrap.servers": self.servers}

    def __post_init__(self) -> None:
        for key in self.client:
            if key in RESERVED:
                raise ValueError(f"client.{key} is reserved: {RESERVED[key]}")


FieldPath = Annotated[
    str,
    Meta(
        pattern=r"^[^.\x00]+(\.[^.\x00]+){0,19}\Z",
        description="the path of a field: up to 20 names separated by dots, none of them empty",
    ),
]


class ProducerSettings(Section, frozen=True):
    interval_ms: Annotated[float, Meta(ge=0, le=3_600_000)] = 36
    """Average interval per message; 0 is as fast as possible."""
    batch_size: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    initial_retry_delay_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 3000
    delivery_timeout_ms: Annotated[int, Meta(ge=1000, le=3_600_000)] = 60_000
    on_outage: Literal["spool", "wait"] = "spool"
    """After the retries: write the message to the undelivered folder and resend it from there; or wait for Kafka."""
    id_field: FieldPath = "id"
    """The field of an input line that is its key, as `document.id` of the consumer."""
    undelivered_dir: Annotated[str, Meta(min_length=1)] = "undelivered"
    """Where undelivered messages are written; relative to the parent of the configuration file's folder."""

    @property
    def batch_interval(self) -> float:
        """Seconds from one batch to the next."""
        return self.interval_ms * self.batch_size / 1000

    @property
    def waits(self) -> bool:
        return self.on_outage == "wait"


class LoggingSettings(Section, frozen=True):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["json", "text"] = "json"
    log_dir: str = ""
    """Where log files are written in addition to standard output; none by default."""


class MetricsSettings(Section, frozen=True):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8000


class Settings(Section, frozen=True):
    kafka: KafkaSettings = KafkaSettings()
    producer: ProducerSettings = ProducerSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()


VARIABLES = (
    Variable("KAFKA_BOOTSTRAP_SERVERS", ("kafka", "bootstrap_servers")),
    Variable("KAFKA_TOPIC", ("kafka", "topic")),
    Variable("KAFKA_COMPRESSION_TYPE", ("kafka", "compression_type")),
    Variable("KAFKA_SECURITY_PROTOCOL", ("kafka", "client", "security.protocol")),
    Variable("KAFKA_SASL_MECHANISM", ("kafka", "client", "sasl.mechanism")),
    Variable("KAFKA_SASL_USERNAME", ("kafka", "client", "sasl.username"), secret=True),
    Variable("KAFKA_SASL_PASSWORD", ("kafka", "client", "sasl.password"), secret=True),
    Variable("KAFKA_SSL_CA_LOCATION", ("kafka", "client", "ssl.ca.location")),
    Variable("KAFKA_SSL_CERTIFICATE_LOCATION", ("kafka", "client", "ssl.certificate.location")),
    Variable("KAFKA_SSL_KEY_LOCATION", ("kafka", "client", "ssl.key.location")),
    Variable("KAFKA_SSL_KEY_PASSWORD", ("kafka", "client", "ssl.key.password"), secret=True),
    Variable("PRODUCER_INTERVAL_MS", ("producer", "interval_ms")),
    Variable("PRODUCER_BATCH_SIZE", ("producer", "batch_size")),
    Variable("PRODUCER_MAX_RETRIES", ("producer", "max_retries")),
    Variable("PRODUCER_INITIAL_RETRY_DELAY_MS", ("producer", "initial_retry_delay_ms")),
    Variable("PRODUCER_DELIVERY_TIMEOUT_MS", ("producer", "delivery_timeout_ms")),
    Variable("PRODUCER_ON_OUTAGE", ("producer", "on_outage")),
    Variable("PRODUCER_ID_FIELD", ("producer", "id_field")),
    Variable("PRODUCER_UNDELIVERED_DIR", ("producer", "undelivered_dir")),
    Variable("LOG_LEVEL", ("logging", "level")),
    Variable("LOG_FORMAT", ("logging", "format")),
    Variable("LOG_DIR", ("logging", "log_dir")),
    Variable("METRICS_ENABLED", ("metrics", "enabled")),
    Variable("METRICS_HOST", ("metrics", "host")),
    Variable("METRICS_PORT", ("metrics", "port")),
)


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """The file's settings, overridden by the environment, with paths resolved. Raises ConfigurationError."""
    settings = load(Settings, path, VARIABLES, environ)
    require_files(settings.kafka.client, f"{path} and the environment")
    folder = path.absolute().parent.parent / settings.producer.undelivered_dir
    return replace(settings, producer=replace(settings.producer, undelivered_dir=str(folder)))


def load_metrics_settings(path: Path, environ: Mapping[str, str]) -> MetricsSettings:
    """These alone, without the secrets and the rest of the environment. Raises ConfigurationError."""
    return load(Settings, path, [variable for variable in VARIABLES if variable.path[0] == "metrics"], environ).metrics
