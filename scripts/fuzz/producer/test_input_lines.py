"""Input lines: each is a message with the same content, or is reported as invalid."""

import json
from collections.abc import Sequence
from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from fuzz.strategies import lines
from src.jsonl_input import JsonlInput, parse_line
from src.model.errors import InvalidMessage
from src.model.message import ProducerRecord

NEW_ID = "00000000-0000-4000-8000-000000000000"


@given(st.lists(lines, max_size=10))
def test_every_input_line_is_sent_or_counted_as_invalid(lines: Sequence[bytes]) -> None:
    reader = JsonlInput(BytesIO(b"x\n" + b"\n".join(lines)), clock=lambda: 0.0, new_id=lambda: NEW_ID)

    messages: list[ProducerRecord] = []
    while not reader.exhausted:
        messages += reader.next_batch(len(lines) + 2)

    expected = [_message(line) for line in lines if line.strip()]
    valid = [message for message in expected if message is not None]
    assert [(message.key, message.value) for message in messages] == [(each.key, each.value) for each in valid]
    assert reader.read == 1 + len(expected)
    assert reader.invalid == 1 + expected.count(None)


def _message(line: bytes) -> ProducerRecord | None:
    try:
        message = parse_line(line, [], lambda: NEW_ID)
    except InvalidMessage as error:
        assert str(error)
        return None
    _check(line, message)
    return message


def _check(line: bytes, message: ProducerRecord) -> None:
    """The content is the user's as another JSON parser reads it; only an id may be added."""
    sent, value = json.loads(line.strip()), json.loads(message.value or b"")
    if added := "id" not in sent:
        sent["id"] = NEW_ID
    assert json.dumps(value, sort_keys=True) == json.dumps(sent, sort_keys=True)
    assert message.key == value["id"].encode()
    assert added or message.value == line.strip()
    assert b"\n" not in (message.value or b"")
