"""Settings with their defaults and limits."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from src.model import topic_names
from src.utils.config import Variable, load
from src.utils.secret import MASK, ClientSettings, Secret
from src.utils.settings_check import require_files

VERSION = "1.0.0"
DEFAULT_FILE = Path(__file__).resolve().parent.parent / "config" / "config.json"

DEFAULT_TOPIC = "data-topic"
COLLECTION_NAME = r"^(?!system\.)[^$\x00]{1,200}\Z"
Topic = Annotated[
    str,
    Meta(
        pattern=topic_names.NAME,
        description="the name of a topic: 1 to 249 letters, digits, `.`, `_` and `-`, and neither `.` nor `..`",
    ),
]
TopicOrPattern = Annotated[
    str,
    Meta(
        pattern=f"{topic_names.NAME}|{topic_names.PATTERN}",
        description="the name of a topic, or `^` and a pattern of topic names; a dot itself is `\\.` in a pattern",
    ),
]
Collection = Annotated[
    str,
    Meta(
        pattern=COLLECTION_NAME,
        description="the name of a collection: 1 to 200 characters without `$`, and not starting with `system.`",
    ),
]
Port = Annotated[int, Meta(ge=0, le=65535)]
FieldPath = Annotated[
    str,
    Meta(
        pattern=r"^[^.\x00\ud800-\udfff]+(\.[^.\x00\ud800-\udfff]+){0,19}\Z",
        description="the path of a field: up to 20 names separated by dots, none of them empty",
    ),
]
Servers = Annotated[
    str,
    Meta(
        pattern=r"^\s*[^\s,]+:\d+\s*(,\s*[^\s,]+:\d+\s*)*,?\s*\Z",
        description="host:port, or several of them with commas",
    ),
]

# librdkafka keys that the guarantee depends on, each with the reason why it is reserved.
RESERVED = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "group.id": "set kafka.group_id",
    "enable.auto.commit": "an offset is committed only when its message is stored or dead-lettered",
    "enable.auto.offset.store": "an offset is committed only when its message is stored or dead-lettered",
    "auto.offset.reset": "no offset is skipped silently; see consumer.on_offset_gap",
    "isolation.level": "messages of aborted transactions were never sent",
    "statistics.interval.ms": "the broker's state and the lag are read from the statistics",
    "group.protocol": "set kafka.group_protocol",
    "partition.assignment.strategy": "cooperative-sticky is the one that is tested",
    "group.instance.id": "replicas share this setting, and members with one instance id fence one another",
}

_HOST = r"(\[[0-9a-fA-F:.]+\]|[\w.%-]+)(:\d+)?"
_MONGODB_URI = re.compile(
    rf"mongodb(\+srv)?://((?P<user>[^:@/?#]*)(?P<password>:[^@/?#]*)?(?=@))?(?P<rest>@?{_HOST}(,{_HOST})*(/[^?@]*)?)"
    r"(?P<options>\?[^@]*)?"
)
_SECRET_OPTION = re.compile(r"(?i)(?<=[?&;])([^=&;]*(?:pass|secret|token|properties)[^=&;]*)=[^&;]*")


class StoreUri(Secret):
    """mongodb://, mongodb+srv:// or sqlite://; shown without the password, and without options that hold secrets."""

    __slots__ = ()

    def __init__(self, value: str) -> None:
        if not value.startswith(("mongodb://", "mongodb+srv://", "sqlite://")):
            raise ValueError("it must start with mongodb://, mongodb+srv:// or sqlite://")
        super().__init__(value)

    def __str__(self) -> str:
        uri = self.reveal()
        scheme = uri.partition("://")[0]
        if scheme == "sqlite":
            return uri
        parts = _MONGODB_URI.fullmatch(uri)
        if parts is None:  # perhaps because of an unescaped character in the password
            return f"{scheme}://{MASK}"
        password = f":{MASK}" if parts["password"] else ""
        options = _SECRET_OPTION.sub(rf"\1={MASK}", parts["options"] or "")
        return f"{scheme}://{parts['user'] or ''}{password}{parts['rest']}{options}"


class RegistryUrl(Secret):
    """http:// or https://, or several with commas. It is no secret: a user and a password are settings of their own."""

    __slots__ = ()

    def __init__(self, value: str) -> None:
        if not re.fullmatch(rf"https?://{_HOST}[^@?#,]*(, *https?://{_HOST}[^@?#,]*)*", value):
            raise ValueError("it must be http:// or https:// and a host, without a user: set schema_registry.username")
        super().__init__(value)

    def __str__(self) -> str:
        return self.reveal()


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of settings; an unknown key is an error."""


class KafkaSettings(Section, frozen=True):
    bootstrap_servers: Servers = "kafka:9092"
    topic: Topic = DEFAULT_TOPIC
    topics: tuple[TopicOrPattern, ...] = ()
    """In place of `topic`: several names, or one pattern."""
    group_id: Annotated[str, Meta(min_length=1, max_length=249)] = "data-consumer-group"
    group_protocol: Literal["classic", "consumer"] = "classic"
    """`consumer` is that of KIP-848, which requires Kafka 4.0."""
    dead_letter_topic: Topic = "data-topic.dlq"
    client: ClientSettings = ClientSettings()
    """Further librdkafka keys, for example for TLS and SASL."""

    @property
    def subscription(self) -> Sequence[str]:
        """The names of the topics that are read, or a pattern of them."""
        return self.topics or (self.topic,)

    @property
    def pattern(self) -> str | None:
        [first, *_] = self.subscription
        return first if first.startswith("^") else None

    @property
    def known_topics(self) -> Sequence[str]:
        """Empty where only Kafka knows which topics match the pattern."""
        return () if self.pattern else self.subscription

    def reads(self, topic: str) -> bool:
        """Whether this is one of the topics. A pattern never includes the dead-letter topic."""
        if self.pattern:
            return topic != self.dead_letter_topic and topic_names.matches(self.pattern, topic)
        return topic in self.subscription

    @property
    def servers(self) -> str:
        """The brokers, without whitespace and empty entries."""
        return ",".join(server for server in self.bootstrap_servers.replace(" ", "").split(",") if server)

    @property
    def client_settings(self) -> dict[str, str | int | float | bool]:
        """The configuration of every librdkafka client of this service, with its secrets: do not log it."""
        return {**self.client.reveal(), "bootstrap.servers": self.servers}

    def __post_init__(self) -> None:
        for key in self.client:
            if key in RESERVED:
                raise ValueError(f"client.{key} is reserved: {RESERVED[key]}")
        self._check_topics()
        if self.dead_letter_topic in self.known_topics:
            raise ValueError("dead_letter_topic is the topic itself: the consumer would read its own dead letters")

    def _check_topics(self) -> None:
        if self.pattern:
            topic_names.check_pattern(self.pattern)
        if len(self.topics) > 1 and any(topic.startswith("^") for topic in self.topics):
            raise ValueError("topics: a pattern is the only entry; write one that matches the others too")
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("topics: a topic is there twice; remove one")
        if self.topics and self.topic != DEFAULT_TOPIC and not self.reads(self.topic):
            raise ValueError(f"topics does not include topic, {self.topic}; add it to topics, or remove topic")


class ConsumerSettings(Section, frozen=True):
    batch_size: Annotated[int, Meta(ge=1, le=10_000)] = 5000
    """The maximum number of records that are stored in one call: a batch has as many as have arrived."""
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    """Retries of a message that fails alone, for an unknown reason, before it is dead-lettered."""
    dead_letter_storm_percent: Annotated[int, Meta(ge=1, le=100)] = 80
    """If more of the last 200 messages of a partition would be dead-lettered, they are held back; 100: never."""
    offset_commit_frequency_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    on_offset_gap: Literal["stop", "earliest"] = "stop"
    """If a committed offset no longer exists: stop the partition, or continue at the oldest message and log it."""


class MongoSettings(Section, frozen=True):
    uri: StoreUri = StoreUri("mongodb://mongodb:27017")
    database: Annotated[
        str,
        Meta(
            pattern=r"^[^/\\. \"$*<>:|?\x00]{1,63}\Z",
            description='the name of a database: 1 to 63 characters, none of them a space or one of `/\\."$*<>:|?`',
        ),
    ] = "pubsub"
    collection: Collection = "messages"
    """`{topic}` in it stands for the topic of the message."""
    collections: dict[str, Collection] = field(default_factory=dict)
    """By topic, where it is not `collection`."""
    timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] = 10_000
    """How long one call may take."""
    ttl_days: Annotated[float, Meta(gt=0, le=24_000)] | None = None

    def collection_of(self, topic: str) -> str:
        return self.collections.get(topic, self.collection).replace("{topic}", topic)


MODULE_AND_FUNCTION = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
FieldType = Literal["string", "number", "integer", "boolean", "object", "array"]


class DocumentSettings(Section, frozen=True):
    """The document of a message. All paths but the new names in `rename` are those of the message."""

    id: FieldPath = "id"
    """The field that is the identity; or `key`, the key in Kafka, or `coordinates`, topic, partition and offset."""
    required: tuple[FieldPath, ...] = ()
    dates: tuple[FieldPath, ...] = ("created_at",)
    checks: dict[FieldPath, FieldType] = field(default_factory=lambda: {"name": "string", "metadata": "object"})
    drop: tuple[FieldPath, ...] = ()
    keep: tuple[FieldPath, ...] = ()
    rename: dict[FieldPath, FieldPath] = field(default_factory=dict)
    transform: Annotated[str, Meta(pattern=rf"^({MODULE_AND_FUNCTION})?\Z", description="module:function")] = ""
    transforms_folder: Annotated[str, Meta(min_length=1)] = "transforms"

    write: Literal["insert", "replace", "merge"] = "insert"
    """Keep the first message of an id, replace its document by that of a newer one, or merge the newer one into it."""
    on_tombstone: Literal["dead_letter", "delete"] = "dead_letter"
    """A message without a value is invalid, or deletes the document of its key."""

    @property
    def identity_field(self) -> str:
        """The field of a document that is its identity."""
        return "id" if self.id == "id" else "_id"

    @property
    def stored_dates(self) -> tuple[str, ...]:
        """The paths of the dates in a document."""
        return tuple(self._stored(path) for path in self.dates)

    def _stored(self, path: str) -> str:
        for old, new in self.rename.items():
            if _is_within(path, old):
                return new + path.removeprefix(old)
        return path

    def __post_init__(self) -> None:
        if self.keep and self.drop:
            raise ValueError("keep and drop are both set; empty one of them")
        for path in self.dates:
            if path in self.checks:
                raise ValueError(f"checks: `{path}` is one of dates, which are checked already; remove it")
        if any(_is_within(path, self.identity_field) for path in self.stored_dates):
            raise ValueError(f"dates: `{self.identity_field}` is the identity, and no date; remove it")
        if self.identity_field == "id" and any(_is_within("id", path) for path in self.drop):
            raise ValueError("drop: `id` is the identity; set id to another field, or do not drop it")
        if self.on_tombstone == "delete" and (self.id != "key" or self.write == "insert"):
            raise ValueError("on_tombstone: `delete` needs id `key` and write `replace` or `merge`; set these, too")
        _check_renames(self)


def _check_renames(settings: DocumentSettings) -> None:
    for old, new in settings.rename.items():
        name = f"rename: `{old}` to `{new}`"
        if new.split(".")[0] in ("_id", "kafka"):
            raise ValueError(f"{name}: _id and kafka are reserved; use another name")
        if settings.identity_field == "id" and "id" in (old, new.split(".")[0]):
            raise ValueError(f"{name}: `id` is the identity; set id to another field, or leave it out")
        if any(_is_within(old, path) for path in settings.drop):
            raise ValueError(f"{name}: it is dropped; remove it from drop or from rename")
        if settings.keep and not any(_is_within(old, path) or _is_within(path, old) for path in settings.keep):
            raise ValueError(f"{name}: it is not kept; add it to keep")
    for paths in (list(settings.rename), list(settings.rename.values())):
        _check_distinct(paths)


def _check_distinct(paths: list[str]) -> None:
    for number, path in enumerate(paths):
        for other in paths[:number]:
            if _is_within(path, other) or _is_within(other, path):
                raise ValueError(f"rename: `{other}` and `{path}` are the same field, or one contains the other")


def _is_within(path: str, other: str) -> bool:
    """Whether a path is another, or leads to a field in it."""
    return path == other or path.startswith(f"{other}.")


class SchemaRegistrySettings(Section, frozen=True):
    """Where the schemas of messages in Avro, JSON Schema and Protobuf are; without `url`, they are invalid."""

    url: RegistryUrl | None = None
    username: Secret | None = None
    password: Secret | None = None
    ssl_ca_location: str = ""


class LoggingSettings(Section, frozen=True):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["json", "text"] = "json"
    log_dir: str = ""
    """Where log files are written in addition to standard output; none by default."""


class MetricsSettings(Section, frozen=True):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8001


class Settings(Section, frozen=True):
    kafka: KafkaSettings = KafkaSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    mongodb: MongoSettings = MongoSettings()
    document: DocumentSettings = DocumentSettings()
    schema_registry: SchemaRegistrySettings = SchemaRegistrySettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()

    def of_topic(self, topic: str) -> "Settings":
        """For what looks at one of the topics, and at its collection."""
        return replace(
            self,
            kafka=replace(self.kafka, topic=topic, topics=()),
            mongodb=replace(self.mongodb, collection=self.mongodb.collection_of(topic), collections={}),
        )

    def __post_init__(self) -> None:
        for topic in self.mongodb.collections:
            if not self.kafka.reads(topic):
                raise ValueError(f"mongodb.collections has {topic}, which is not read; add it to kafka.topics")
        for topic in self.kafka.known_topics:
            name = self.mongodb.collection_of(topic)
            if not re.match(COLLECTION_NAME, name):
                raise ValueError(f"mongodb.collections: {name} cannot be a collection; give topic {topic} another one")


VARIABLES = (
    Variable("KAFKA_BOOTSTRAP_SERVERS", ("kafka", "bootstrap_servers")),
    Variable("KAFKA_TOPIC", ("kafka", "topic")),
    Variable("KAFKA_TOPICS", ("kafka", "topics")),
    Variable("KAFKA_DEAD_LETTER_TOPIC", ("kafka", "dead_letter_topic")),
    Variable("CONSUMER_GROUP_ID", ("kafka", "group_id")),
    Variable("KAFKA_GROUP_PROTOCOL", ("kafka", "group_protocol")),
    Variable("KAFKA_SECURITY_PROTOCOL", ("kafka", "client", "security.protocol")),
    Variable("KAFKA_SASL_MECHANISM", ("kafka", "client", "sasl.mechanism")),
    Variable("KAFKA_SASL_USERNAME", ("kafka", "client", "sasl.username"), secret=True),
    Variable("KAFKA_SASL_PASSWORD", ("kafka", "client", "sasl.password"), secret=True),
    Variable("KAFKA_SSL_CA_LOCATION", ("kafka", "client", "ssl.ca.location")),
    Variable("KAFKA_SSL_CERTIFICATE_LOCATION", ("kafka", "client", "ssl.certificate.location")),
    Variable("KAFKA_SSL_KEY_LOCATION", ("kafka", "client", "ssl.key.location")),
    Variable("KAFKA_SSL_KEY_PASSWORD", ("kafka", "client", "ssl.key.password"), secret=True),
    Variable("CONSUMER_BATCH_SIZE", ("consumer", "batch_size")),
    Variable("CONSUMER_MAX_RETRIES", ("consumer", "max_retries")),
    Variable("CONSUMER_DEAD_LETTER_STORM_PERCENT", ("consumer", "dead_letter_storm_percent")),
    Variable("CONSUMER_OFFSET_COMMIT_FREQUENCY_MS", ("consumer", "offset_commit_frequency_ms")),
    Variable("CONSUMER_ON_OFFSET_GAP", ("consumer", "on_offset_gap")),
    Variable("MONGODB_URI", ("mongodb", "uri"), secret=True),
    Variable("MONGODB_DATABASE", ("mongodb", "database")),
    Variable("MONGODB_COLLECTION", ("mongodb", "collection")),
    Variable("MONGODB_COLLECTIONS", ("mongodb", "collections")),
    Variable("MONGODB_TIMEOUT_MS", ("mongodb", "timeout_ms")),
    Variable("MONGODB_TTL_DAYS", ("mongodb", "ttl_days")),
    Variable("DOCUMENT_ID", ("document", "id")),
    Variable("DOCUMENT_REQUIRED", ("document", "required")),
    Variable("DOCUMENT_DATES", ("document", "dates")),
    Variable("DOCUMENT_CHECKS", ("document", "checks")),
    Variable("DOCUMENT_DROP", ("document", "drop")),
    Variable("DOCUMENT_KEEP", ("document", "keep")),
    Variable("DOCUMENT_RENAME", ("document", "rename")),
    Variable("DOCUMENT_TRANSFORM", ("document", "transform")),
    Variable("DOCUMENT_TRANSFORMS_FOLDER", ("document", "transforms_folder")),
    Variable("DOCUMENT_WRITE", ("document", "write")),
    Variable("DOCUMENT_ON_TOMBSTONE", ("document", "on_tombstone")),
    Variable("SCHEMA_REGISTRY_URL", ("schema_registry", "url"), secret=True),
    Variable("SCHEMA_REGISTRY_USERNAME", ("schema_registry", "username"), secret=True),
    Variable("SCHEMA_REGISTRY_PASSWORD", ("schema_registry", "password"), secret=True),
    Variable("SCHEMA_REGISTRY_SSL_CA_LOCATION", ("schema_registry", "ssl_ca_location")),
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
    folder = DEFAULT_FILE.parent.parent / settings.document.transforms_folder
    return replace(settings, document=replace(settings.document, transforms_folder=str(folder)))


def load_metrics_settings(path: Path, environ: Mapping[str, str]) -> MetricsSettings:
    """These alone, without the secrets and the rest of the environment. Raises ConfigurationError."""
    return load(Settings, path, [variable for variable in VARIABLES if variable.path[0] == "metrics"], environ).metrics
