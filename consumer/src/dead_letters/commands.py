"""The commands. Each returns the exit code."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from threading import Event
from typing import NamedTuple, TextIO

from msgspec.structs import replace

from src.dead_letters.entries import Entry, Filter, State, entry_identity
from src.dead_letters.reader import DeadLetterReader
from src.dead_letters.replay import Discarder, Replayer
from src.dead_letters.summary import summarize
from src.dead_letters.text import details, entry_as_json, group_as_json, record_as_json, summary_table, table
from src.kafka.confirmed_producer import ConfirmedProducer
from src.model.errors import ConsumerError
from src.model.position import MessagePosition
from src.settings import KafkaSettings
from src.utils.shutdown import stopping_on_signals


class NotOneMessage(ConsumerError):
    """An option that is for one message, and no message matches, or several do."""


class Streams(NamedTuple):
    """Results are printed to `out`, summaries and errors to `err`."""

    out: TextIO
    err: TextIO

    @property
    def local(self) -> bool:
        """Times for a person are in the local time zone."""
        return self.out.isatty()

    def print(self, line: str) -> None:
        print(line, file=self.out)

    def print_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.print(line)

    def print_bytes(self, content: bytes) -> None:
        self.out.flush()
        self.out.buffer.write(content)
        self.out.buffer.flush()

    def print_error(self, line: str) -> None:
        print(line, file=self.err)


class Commands:
    def __init__(self, settings: KafkaSettings, dead_letters: DeadLetterReader, streams: Streams) -> None:
        self._settings = settings
        self._dead_letters = dead_letters
        self._streams = streams

    def run(self, options: argparse.Namespace) -> int:
        commands = {
            "list": self._list,
            "summary": self._summary,
            "show": self._show,
            "replay": self._replay,
            "discard": self._discard,
        }
        return commands[options.command](options)

    def replay_entries(self, entries: Sequence[Entry], *, value: bytes | None = None, as_json: bool = False) -> int:
        """Replays at least one, with `value` in place of its own if it is given."""
        records = self._dead_letters.records((entry.dead_letter for entry in entries), "replaying")
        messages = records if value is None else (replace(record, value=value) for record in records)
        with self._producer() as (producer, stop):
            replayed = Replayer(producer, self._settings.dead_letter_topic, stop=stop).replay(messages)
        return self._report("replayed", replayed, len(entries), as_json=as_json)

    def discard_entries(self, entries: Sequence[Entry], *, as_json: bool = False) -> int:
        """Discards at least one."""
        with self._producer() as (producer, stop):
            discarder = Discarder(producer, self._settings.dead_letter_topic, stop=stop)
            discarded = discarder.discard(self._dead_letters.track("discarding", entries))
        return self._report("discarded", discarded, len(entries), as_json=as_json)

    def _list(self, options: argparse.Namespace) -> int:
        entries = self._dead_letters.entries()
        selected = self._matching(entries, options, _listed(options))[: options.limit]
        self._print_entries(selected, as_json=options.json)
        self._streams.print_error(_counts(entries, len(selected)))
        return 0

    def _summary(self, options: argparse.Namespace) -> int:
        entries = self._dead_letters.entries()
        selected = self._matching(entries, options, _listed(options))[: options.limit]
        for number, groups in enumerate(summarize(selected, local=self._streams.local) if selected else ()):
            if number and not options.json:
                self._streams.print("")
            lines = map(group_as_json, groups) if options.json else summary_table(groups, local=self._streams.local)
            self._streams.print_all(lines)
        self._streams.print_error(_counts(entries, len(selected)))
        return 0

    def _show(self, options: argparse.Namespace) -> int:
        entries = self._dead_letters.entries()
        selected = self._matching(entries, options, _listed(options))[: options.limit]
        if not selected and options.position:
            kind = "at" if options.dead_letter else "of the message at"
            self._streams.print_error("dead_letters: there is no dead letter {} {}:{}".format(kind, *options.position))
            return 1
        if options.only_value:
            return self._print_value(_only(selected, entries, "--value"))
        self._print_dead_letters(selected, as_json=options.json)
        if not options.position:
            self._streams.print_error(_counts(entries, len(selected)))
        return 0

    def _replay(self, options: argparse.Namespace) -> int:
        entries = self._dead_letters.entries()
        matching = self._matching(entries, options, _settleable(options))
        selected = [entry for entry in matching if entry.position][: options.limit]
        if options.value is not None:
            _only(selected, entries, "--value-file")
        if selected and not options.dry_run:
            return self.replay_entries(selected, value=options.value, as_json=options.json)
        self._print_entries(selected, as_json=options.json)
        self._streams.print_error(f"{_counts(entries, len(selected))}; nothing was produced")
        return 0

    def _discard(self, options: argparse.Namespace) -> int:
        entries = self._dead_letters.entries()
        selected = self._matching(entries, options, _settleable(options))[: options.limit]
        if selected and not options.dry_run:
            return self.discard_entries(selected, as_json=options.json)
        self._print_entries(selected, as_json=options.json)
        self._streams.print_error(f"{_counts(entries, len(selected))}; nothing was discarded")
        return 0

    def _matching(self, entries: Iterable[Entry], options: argparse.Namespace, states: Sequence[State]) -> list[Entry]:
        dead_letter = None
        if options.dead_letter:
            dead_letter = MessagePosition(self._settings.dead_letter_topic, *options.position)
        elif options.position:
            entries = [entry for entry in entries if self._is_at(options.position, entry)]
        times = options.since, options.until
        criteria = (options.reason, *times, options.topic, options.partition, options.offset, dead_letter)
        return Filter(states, *criteria).apply(entries)

    def _is_at(self, position: tuple[int, int], entry: Entry) -> bool:
        """In one of the topics that the consumer reads."""
        return (
            entry.position is not None and entry.position[1:] == position and self._settings.reads(entry.position.topic)
        )

    @contextmanager
    def _producer(self) -> Iterator[tuple[ConfirmedProducer, Event]]:
        """The event is set by a signal to stop."""
        stop = Event()
        with closing(ConfirmedProducer(self._settings)) as producer, stopping_on_signals(stop):
            yield producer, stop

    def _report(self, verb: str, done: int, total: int, *, as_json: bool) -> int:
        if done < total:
            self._streams.print_error(f"dead_letters: stopped after {done} of {total}; run it again to continue")
            return 1
        self._streams.print(json.dumps({verb: done}) if as_json else f"{done} {verb}, each confirmed by Kafka")
        return 0

    def _print_entries(self, entries: Sequence[Entry], *, as_json: bool) -> None:
        if entries:
            self._streams.print_all(
                map(entry_as_json, entries) if as_json else table(entries, local=self._streams.local)
            )

    def _print_dead_letters(self, entries: Sequence[Entry], *, as_json: bool) -> None:
        """All of each message: several, if it was dead-lettered again after a crash."""
        states = {entry.identity: entry.state for entry in entries}
        positions = chain.from_iterable(entry.dead_letters for entry in entries)
        for number, record in enumerate(self._dead_letters.records(positions)):
            state = states[entry_identity(record)]
            if number and not as_json:
                self._streams.print("")
            self._streams.print_all(
                [record_as_json(record, state)] if as_json else details(record, state, local=self._streams.local)
            )

    def _print_value(self, entry: Entry) -> int:
        for record in self._dead_letters.records([entry.dead_letter]):
            self._streams.print_bytes(record.value or b"")
        return 0


def _listed(options: argparse.Namespace) -> Sequence[State]:
    return tuple(State) if options.all or options.position else (State.WAITING, State.FOREIGN)


def _settleable(options: argparse.Namespace) -> Sequence[State]:
    return (State.WAITING, State.FOREIGN) if options.any_topic else (State.WAITING,)


def _only(selected: Sequence[Entry], entries: Sequence[Entry], option: str) -> Entry:
    if not selected:
        raise NotOneMessage(_counts(entries, 0))
    if len(selected) > 1:
        raise NotOneMessage(
            f"{option} is for one message, but {len(selected)} match; give PARTITION:OFFSET, and --topic if several do"
        )
    return selected[0]


def _counts(entries: Sequence[Entry], selected: int) -> str:
    if not entries:
        return "no dead letters"
    states = Counter(entry.state for entry in entries)
    counts = ", ".join(f"{states[state]} {state}" for state in State)
    repeated = sum(entry.copies - 1 for entry in entries)
    more = f"; {repeated} dead letters repeated after a crash" if repeated else ""
    subject = f"{selected} of {len(entries)}" if selected else f"no messages match, out of {len(entries)}"
    return f"{subject} dead-lettered messages ({counts}{more})"
