"""A user's lines on their way into messages: each is one, with its own content, or is named as none."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

from fuzz import messages
from fuzz.chance import Chance
from fuzz.shrinking import shorter
from fuzz.target import require
from src.jsonl_input import JsonlInput, parse_line
from src.model.errors import InvalidMessage
from src.model.message import ProducerRecord

AT_ONCE = 50
TIME = "2023-07-15T12:34:56.789Z"
NEW_ID = "00000000-0000-4000-8000-000000000000"


class Lines:
    at_once = AT_ONCE

    def make(self, chance: Chance, index: int) -> bytes:
        return messages.line(chance, index)

    def check(self, inputs: Sequence[bytes]) -> Counter[str]:
        outcomes = Counter(_outcome(line) for line in inputs)
        _check_file(inputs, outcomes)
        return outcomes

    def smaller(self, value: bytes) -> Iterable[bytes]:
        return shorter(value)

    def shown(self, value: bytes) -> Mapping[str, Any]:
        return {"line": repr(value)}

    def close(self) -> None:
        """Nothing is open."""


def _outcome(line: bytes) -> str:
    if not line.strip():
        return "empty"
    try:
        message = parse_line(line, TIME, lambda: NEW_ID)
    except InvalidMessage as error:
        require(str(error), "no reason is given")
        return "no message"
    return _checked(line, message)


def _checked(line: bytes, message: ProducerRecord) -> str:
    """The content is the user's, as another JSON parser reads it; at most an id is new."""
    theirs, value = json.loads(line.strip()), json.loads(message.value or b"")
    if made := "id" not in theirs:
        theirs["id"] = NEW_ID
    require(json.dumps(value, sort_keys=True) == json.dumps(theirs, sort_keys=True), "another content")
    require(message.key == value["id"].encode(), "the key is not the id")
    require(made or message.value == line.strip(), "other bytes than the user's")
    require(b"\n" not in (message.value or b""), "more than a line")
    return "given an id" if made else "message"


def _check_file(lines: Sequence[bytes], outcomes: Counter[str]) -> None:
    """The same lines out of a file: none is lost, none is another's."""
    reader = JsonlInput(BytesIO(b"x\n" + b"\n".join(lines)), clock=lambda: 0.0, new_id=lambda: NEW_ID)
    taken: list[ProducerRecord] = []
    while not reader.exhausted:
        taken += reader.next_batch(len(lines) + 2)
    require(reader.read == len(lines) - outcomes["empty"] + 1, "lines are lost")
    require(len(taken) == outcomes["message"] + outcomes["given an id"], "messages are lost")
    require(reader.invalid == outcomes["no message"] + 1, "what is no message is not counted")
