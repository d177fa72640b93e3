"""The command line for dead letters: list, show, replay."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from threading import Event
from typing import NamedTuple, TextIO

from src.dead_letters.entries import Entry, Place, Selection, State, entries
from src.dead_letters.letter import Origin, read_note, read_origin
from src.dead_letters.replay import Replay
from src.dead_letters.text import entry_as_json, page, record_as_json, table
from src.kafka.confirmed_producer import ConfirmedProducer
from src.kafka.topic_reader import OffsetRange, TopicReader
from src.model.errors import ConsumerError, SourceError
from src.model.record import Record
from src.settings import DEFAULT_FILE, VERSION, KafkaSettings, load_settings
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.shutdown import stopping_on_signals

logger = logging.getLogger("dead_letters")

_REPLAY_HELP = """\
Sends the original key, value and headers back to the topic they came from, with a new timestamp and the header
__dead_letter.replays, which counts. Each message that Kafka has confirmed is noted in the dead-letter topic, beside
its letter, so that no later replay sends it again, whatever the filters of either are; interrupted, just run it again.
(Killed between sending and noting, it sends up to 100 messages twice, of which the store keeps one each.)
A message that is still broken is parked anew, and waits again.
"""


class DeadLetterReader:
    """The dead-letter topic as it is at this moment. Raises SourceError where it can't be read."""

    def __init__(self, settings: KafkaSettings, snapshot: TopicReader) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._spans = self._snapshot.offset_ranges(settings.dead_letter_topic, self._partitions())

    def entries(self) -> list[Entry]:
        return entries(self._read(self._spans), self._settings.topic)

    def letters_of(self, partition: int, offset: int) -> list[Record]:
        """Those that park the message of this place: several, where a crash has parked it more than once."""
        origin = Origin(self._settings.topic, partition, offset)
        return [record for record in self._read(self._spans) if read_origin(record.headers) == origin]

    def letter_at(self, partition: int, offset: int) -> list[Record]:
        """The one letter of this place in the dead-letter topic itself."""
        span = self._spans.get(partition, OffsetRange(0, 0))
        inside = span.first <= offset < span.end
        found = self._read({partition: OffsetRange(offset, offset + 1)} if inside else {})
        return [record for record in found if read_note(record) is None]

    def records(self, places: Sequence[Place]) -> Iterator[Record]:
        wanted = set(places)
        spans: dict[int, OffsetRange] = {}
        for partition, offset in wanted:
            first, end = spans.get(partition, OffsetRange(offset, offset))
            spans[partition] = OffsetRange(min(first, offset), max(end, offset + 1))
        return (record for record in self._read(spans) if Place(record.partition, record.offset) in wanted)

    def _partitions(self) -> list[int]:
        topic = self._settings.dead_letter_topic
        partitions = self._snapshot.partitions(topic)
        if not partitions:
            raise SourceError(f"there is no topic {topic} at {self._settings.servers}")
        return partitions

    def _read(self, spans: dict[int, OffsetRange]) -> Iterator[Record]:
        return self._snapshot.read(self._settings.dead_letter_topic, spans)


class Streams(NamedTuple):
    """Where the answer goes, and what is said beside it."""

    out: TextIO
    err: TextIO

    def answer(self, line: str) -> None:
        print(line, file=self.out)

    def remark(self, line: str) -> None:
        print(line, file=self.err)


def main(arguments: Sequence[str] | None = None, streams: Streams | None = None) -> int:
    """The program. Exit codes: 0 done, 1 could not be done, 2 wrong configuration or arguments."""
    streams = streams or Streams(_lenient(sys.stdout), _lenient(sys.stderr))
    options = _parser().parse_args(arguments)
    try:
        code = _run(options, streams)
        streams.out.flush()
    except BrokenPipeError:
        _forget(streams.out)
        return 0
    except ConfigurationError as error:
        streams.remark(f"dead_letters: {error}")
        return 2
    except ConsumerError as error:
        streams.remark(f"dead_letters: {error}")
        return 1
    except KeyboardInterrupt:
        streams.remark("dead_letters: interrupted")
        return 1
    except Exception:
        logger.exception("stopped by an error")
        return 1
    return code


def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = load_settings(options.config, os.environ)
    configure(
        service="dead_letters", version=VERSION, level="WARNING", style=settings.logging.format, stream=streams.err
    )
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # its complaint is in the sentence that ends the program
    with TopicReader(settings.kafka) as snapshot:
        return int(options.command(options, settings.kafka, DeadLetterReader(settings.kafka, snapshot), streams))


def _list(options: argparse.Namespace, _kafka: KafkaSettings, shelf: DeadLetterReader, streams: Streams) -> int:
    states = tuple(State) if options.all else (State.WAITING, State.FOREIGN)
    found = shelf.entries()
    chosen = _selection(options, states).of(found)[: options.limit]
    for line in map(entry_as_json, chosen) if options.json else table(chosen):
        streams.answer(line)
    streams.remark(_summary(found, len(chosen)))
    return 0


def _show(options: argparse.Namespace, _kafka: KafkaSettings, shelf: DeadLetterReader, streams: Streams) -> int:
    partition, offset = options.place
    found = shelf.letter_at(partition, offset) if options.letter else shelf.letters_of(partition, offset)
    for number, record in enumerate(found):
        if number and not options.json:
            streams.answer("")
        for line in [record_as_json(record)] if options.json else page(record):
            streams.answer(line)
    if not found:
        what = "no letter lies at" if options.letter else "no letter parks the message of"
        streams.remark(f"dead_letters: {what} {partition}:{offset}")
    return 0 if found else 1


def _replay(options: argparse.Namespace, kafka: KafkaSettings, shelf: DeadLetterReader, streams: Streams) -> int:
    states = (State.WAITING, State.FOREIGN) if options.any_topic else (State.WAITING,)
    found = shelf.entries()
    chosen = [entry for entry in _selection(options, states).of(found) if entry.origin][: options.limit]
    if options.dry_run:
        for line in map(entry_as_json, chosen) if options.json else table(chosen):
            streams.answer(line)
        streams.remark(f"{_summary(found, len(chosen))}; nothing was sent")
        return 0
    return send_back(kafka, shelf, chosen, streams)


def send_back(kafka: KafkaSettings, shelf: DeadLetterReader, chosen: Sequence[Entry], streams: Streams) -> int:
    stop = Event()
    with closing(ConfirmedProducer(kafka)) as delivery, stopping_on_signals(stop):
        replay = Replay(delivery, kafka.dead_letter_topic, stop=stop)
        sent = replay.send(shelf.records([entry.place for entry in chosen]))
    if sent < len(chosen):
        streams.remark(f"dead_letters: stopped after {sent} of {len(chosen)}; run it again to go on")
        return 1
    streams.answer(f"{sent} sent back, each confirmed by Kafka")
    return 0


def _selection(options: argparse.Namespace, states: Sequence[State]) -> Selection:
    return Selection(states, options.reason, options.since, options.until, options.partition, options.offset)


def _summary(found: Sequence[Entry], chosen: int) -> str:
    states = Counter(entry.state for entry in found)
    counts = ", ".join(f"{states[state]} {state}" for state in State)
    repeats = sum(entry.letters - 1 for entry in found)
    more = f"; {repeats} letters are repeats of a crash" if repeats else ""
    return f"{chosen} of {len(found)} parked messages ({counts}{more})"


# -- the edges of the process


def _lenient(stream: TextIO) -> TextIO:
    """A character that the terminal's encoding lacks is escaped; it does not end the program."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _forget(stream: TextIO) -> None:
    """Whoever read has seen enough; what Python flushes at the exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# -- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.dead_letters",
        description="Lists, shows and sends back the messages that the consumer has parked. Times are in UTC.",
        epilog="Exit codes: 0 done, 1 could not be done, 2 wrong configuration or arguments.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _list_parser(
        commands.add_parser(
            "list",
            help="one line a parked message",
            description="Lists what waits in the dead-letter topic, one entry a message.",
        )
    )
    _show_parser(commands.add_parser("show", help="everything about one parked message"))
    replay = commands.add_parser(
        "replay",
        help="send parked messages back to their topic",
        description=_REPLAY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _replay_parser(replay)
    return parser


def _list_parser(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _list)
    _add_filters(parser)
    parser.add_argument("--all", action="store_true", help="also those that were sent back")


def _show_parser(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _show)
    parser.add_argument("place", type=_place, metavar="PARTITION:OFFSET", help="where the message was in its topic")
    parser.add_argument(
        "--letter", action="store_true", help="the place is that of the letter in the dead-letter topic"
    )


def _replay_parser(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _replay)
    _add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent, and send nothing")
    parser.add_argument(
        "--any-topic",
        action="store_true",
        help="also what came from other topics, each to its own; what says no origin is never sent",
    )


def _add_common(parser: argparse.ArgumentParser, command: object) -> None:
    parser.set_defaults(command=command)
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", action="append", default=[], help="may be given several times")
    parser.add_argument("--since", type=_time, metavar="TIME", help="parked at or after this, ISO 8601, UTC if no zone")
    parser.add_argument("--until", type=_time, metavar="TIME", help="parked before this")
    parser.add_argument("--partition", type=int, metavar="N", help="the message's, not its letter's")
    parser.add_argument("--offset", type=int, metavar="N", help="the message's, not its letter's")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N that were parked")


def _time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO 8601 time, such as 2023-07-15T12:34:56Z") from error


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no place, such as 0:42")
    return int(partition), int(offset)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of messages")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
