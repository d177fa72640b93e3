"""An example: `DOCUMENT_TRANSFORM=orders:to_document` makes documents of the events of a shop.

A transform is a function without side effects from a message to its document. It is called for every message, by the
consumer and by the audit. Try it without Kafka, in the folder consumer:

    python -m src.transform orders:to_document < messages.jsonl
"""

from datetime import UTC, datetime
from typing import Any

from src.model.errors import InvalidMessage


def to_document(message: dict[str, Any]) -> dict[str, Any] | None:
    if message.get("type") != "order":
        return None  # the message is skipped: neither stored nor dead-lettered
    if message["total"] < 0:
        raise InvalidMessage("negative_total", f"the total of the order is {message['total']}")
    return {
        "id": message["event_id"],
        "ordered_at": datetime.fromtimestamp(message["ts"]["seconds"], UTC),
        "customer": message["customer"]["name"],
        "total": message["total"],
    }
