"""Messages given up, on their way into the undelivered folder and out again, byte for byte; and torn lines."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzz import messages
from fuzz.chance import Chance
from fuzz.messages import Sent
from fuzz.shrinking import shorter
from fuzz.target import require
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.record import from_line, to_line
from src.undelivered.segments import segment_paths

AT_ONCE = 50
TOPIC = "data-topic"
TIME = "2023-07-15T12:34:56.789Z"


class GivenUp(NamedTuple):
    message: Sent
    fault: Fault
    reason: str
    damaged: bytes
    """What somebody's editor may have made of a line."""


class UndeliveredMessages:
    at_once = AT_ONCE

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "undelivered"

    def make(self, chance: Chance, index: int) -> GivenUp:
        message, fault, reason = messages.sent(chance, index), chance.choice(list(Fault)), chance.text()
        line = to_line(DeliveryFailure(_encoded(message), fault, reason), TOPIC, TIME)
        return GivenUp(message, fault, reason, chance.damaged(line[:2000]))

    def check(self, inputs: Sequence[GivenUp]) -> Counter[str]:
        failures = [DeliveryFailure(_encoded(given.message), given.fault, given.reason) for given in inputs]
        for failure, given in zip(failures, inputs, strict=True):
            _check_line(failure)
            from_line(given.damaged)
        self._check_folder(failures)
        return Counter("kept" for _ in inputs)

    def smaller(self, value: GivenUp) -> Iterator[GivenUp]:
        for message in messages.smaller(value.message):
            yield value._replace(message=message)
        if value.reason:
            yield value._replace(reason="")
        for damaged in shorter(value.damaged):
            yield value._replace(damaged=damaged)

    def shown(self, value: GivenUp) -> Mapping[str, Any]:
        return {name: repr(content) for name, content in value._asdict().items()}

    def close(self) -> None:
        """Nothing is open."""

    def _check_folder(self, failures: Sequence[DeliveryFailure]) -> None:
        """A folder of its own for each check."""
        for old in segment_paths(self._folder):
            old.unlink()
        UndeliveredFolder(self._folder, TOPIC).append(failures)
        found = [from_line(line) for path in segment_paths(self._folder) for line in _lines(path)]
        require(len(found) == len(failures), f"{len(failures)} were kept, {len(found)} are there")
        for kept, failure in zip(found, failures, strict=True):
            require(kept is not None and kept.producer_record == failure.record, "another message than was kept")


def _check_line(failure: DeliveryFailure) -> None:
    line = to_line(failure, TOPIC, TIME)
    kept = from_line(line)
    require(line.count(b"\n") == 1, "more than a line")
    require(kept is not None and kept.producer_record == failure.record, "another message comes out")
    require(kept is not None and (kept.topic, kept.reason) == (TOPIC, failure.reason), "another topic or reason")
    for torn in (line[:-1], line[: len(line) // 2], line[:1], b""):
        require(from_line(torn) is None, "a torn line is taken for whole")


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return file.readlines()


def _encoded(message: Sent) -> ProducerRecord:
    return ProducerRecord(message.key, message.value, list(message.headers or ()))
