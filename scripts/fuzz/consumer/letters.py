"""What is parked comes out of its letter as it came in: byte for byte, and however often it is sent back."""

import json
from base64 import b64decode
from typing import Any

from fuzz.target import require
from src.dead_letters.letter import (
    HEADROOM,
    REASON,
    Letter,
    Origin,
    letter,
    own_headers,
    read_origin,
    read_replays,
    sent_back,
    text_of,
)
from src.dead_letters.text import page, record_as_json
from src.model.record import Record, Rejection

OURS = ("__dead_letter.", "__connect.errors.")


def check_letter(rejection: Rejection) -> None:
    record, first = rejection.record, letter(rejection)
    _check_original(record, first)
    require(read_origin(first.headers) == (record.topic, record.partition, record.offset), "another origin")
    require(text_of(first.headers, REASON) == rejection.reason, "another reason")
    require(
        _size(first) - _size(Letter(record.key, record.value, tuple(record.headers))) <= HEADROOM, "a letter too large"
    )
    _check_rounds(rejection, first)
    _check_shown(record, first)


def _check_original(record: Record, sent: Letter) -> None:
    require((sent.key, sent.value) == (record.key, record.value), "another key or value")
    own = own_headers(sent.headers)
    require(own == own_headers(record.headers), "other headers")
    if not any(name.startswith(OURS) for name, _ in record.headers):
        require(own == record.headers, "other headers than those that came")


def _check_rounds(rejection: Rejection, first: Letter) -> None:
    """Sent back and parked again, three times: its own headers stay, and the letter does not grow."""
    sizes, current = [_size(first)], first
    for _ in range(3):
        back = sent_back(current.headers)
        current = letter(rejection._replace(record=rejection.record._replace(headers=back)))
        require(own_headers(current.headers) == own_headers(rejection.record.headers), "other headers after a replay")
        sizes.append(_size(current))
    before = read_replays(rejection.record.headers).times
    require(read_replays(current.headers).times == before + 3, "replays are not counted")
    require(max(sizes[2:]) - sizes[1] <= len(str(before + 3)), f"a letter grows from round to round: {sizes}")


def _check_shown(record: Record, sent: Letter) -> None:
    """For people without control characters, for programs with every byte."""
    parked = Record("data-topic.dlq", 0, 7, sent.key, sent.value, sent.headers, record.timestamp)
    for line in page(parked):
        require(line.isprintable(), f"a control character on the terminal: {line!a:.200}")
    text = record_as_json(parked)
    require(text.isascii() and text.isprintable(), "a control character in the JSON")
    shown = json.loads(text)
    require(_bytes(shown["value"]) == record.value and _bytes(shown["key"]) == record.key, "shown other than it is")
    headers = [(name, _bytes(content)) for name, content in shown["headers"]]
    require(headers == list(own_headers(record.headers)), "other headers are shown")
    require(Origin(shown["topic"], shown["partition"], shown["offset"]) == read_origin(sent.headers), "other origin")


def _bytes(shown: Any) -> bytes | None:
    if shown is None:
        return None
    return b64decode(shown["base64"]) if isinstance(shown, dict) else str(shown).encode()


def _size(sent: Letter) -> int:
    headers = sum(len(name.encode()) + len(content or b"") for name, content in sent.headers)
    return headers + len(sent.key or b"") + len(sent.value or b"")
