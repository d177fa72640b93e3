"""The format of an undelivered message: one JSON line."""

import msgspec

from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord


class _Binary(msgspec.Struct):
    """Bytes that are not UTF-8, in JSON as `{"base64": "…"}`."""

    base64: bytes


_Content = str | _Binary | None


class UndeliveredRecord(msgspec.Struct, omit_defaults=True):
    """A message, its topic, and why it was not delivered. The field names in the file are those of version 1.0.0."""

    failed_at: str = msgspec.field(name="given_up_at")
    reason: str
    topic: str
    key: _Content
    value: _Content
    headers: list[tuple[str, _Content]]
    rejected: bool = msgspec.field(name="refused", default=False)
    """Kafka rejected the message itself; sending it again helps only after a change of configuration."""

    @property
    def producer_record(self) -> ProducerRecord:
        headers = [(name, _to_bytes(content)) for name, content in self.headers]
        return ProducerRecord(_to_bytes(self.key), _to_bytes(self.value), headers)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UndeliveredRecord).decode


def to_line(failure: DeliveryFailure, topic: str, failed_at: str) -> bytes:
    message = failure.record
    record = UndeliveredRecord(
        failed_at=failed_at,
        reason=failure.reason,
        topic=topic,
        key=_to_content(message.key),
        value=_to_content(message.value),
        headers=[(name, _to_content(content)) for name, content in message.headers],
        rejected=failure.fault is Fault.PERMANENT,
    )
    return _encode(record) + b"\n"


def from_line(line: bytes) -> UndeliveredRecord | None:
    """None where the line is corrupt: truncated by a crash, or edited."""
    try:
        return _decode(line) if line.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _to_content(content: bytes | None) -> _Content:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _Binary(content)


def _to_bytes(content: _Content) -> bytes | None:
    if content is None:
        return None
    return content.base64 if isinstance(content, _Binary) else content.encode()
