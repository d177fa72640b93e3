"""What values that JSON does not have become in a document. Datetimes stay: a store has them."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID


def as_json(value: Any) -> Any:
    convert = _CONVERSIONS.get(type(value))
    return value if convert is None else convert(value)


_CONVERSIONS: Mapping[type, Callable[[Any], Any]] = {
    dict: lambda fields: {name: as_json(value) for name, value in fields.items()},
    list: lambda items: [as_json(item) for item in items],
    bytes: lambda value: b64encode(value).decode(),
    Decimal: lambda value: format(value, "f"),
    UUID: str,
    date: date.isoformat,
    time: time.isoformat,
    datetime: lambda value: value if value.tzinfo else value.isoformat(),  # without a time zone it is no instant
}
