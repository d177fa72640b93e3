"""The commands: list, show and replay. Each returns the exit code."""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from threading import Event
from typing import NamedTuple, TextIO

from src.dead_letters.entries import Entry, Filter, State
from src.dead_letters.reader import DeadLetterReader
from src.dead_letters.replay import Replayer
from src.dead_letters.text import details, entry_as_json, record_as_json, table
from src.kafka.confirmed_producer import ConfirmedProducer
from src.settings import KafkaSettings
from src.utils.shutdown import stopping_on_signals


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

    def print_error(self, line: str) -> None:
        print(line, file=self.err)


class Commands:
    def __init__(self, settings: KafkaSettings, dead_letters: DeadLetterReader, streams: Streams) -> None:
        self._settings = settings
        self._dead_letters = dead_letters
        self._streams = streams

    def run(self, options: argparse.Namespace) -> int:
        command = {"list": self._list, "show": self._show, "replay": self._replay}[options.command]
        return command(options)

    def replay_entries(self, entries: Sequence[Entry]) -> int:
        """Replays at least one."""
        stop = Event()
        with closing(ConfirmedProducer(self._settings)) as producer, stopping_on_signals(stop):
            replayer = Replayer(producer, self._settings.dead_letter_topic, stop=stop)
            replayed = replayer.replay(self._dead_letters.records(entry.dead_letter for entry in entries))
        if replayed < len(entries):
            self._streams.print_error(
                f"dead_letters: stopped after {replayed} of {len(entries)}; run it again to continue"
            )
            return 1
        self._streams.print(f"{replayed} replayed, each confirmed by Kafka")
        return 0

    def _list(self, options: argparse.Namespace) -> int:
        states = tuple(State) if options.all else (State.WAITING, State.FOREIGN)
        entries = self._dead_letters.entries()
        selected = _filter(options, states).apply(entries)[: options.limit]
        self._print_entries(selected, as_json=options.json)
        self._streams.print_error(_summary(entries, len(selected)))
        return 0

    def _show(self, options: argparse.Namespace) -> int:
        partition, offset = options.position
        find = self._dead_letters.dead_letter_at if options.dead_letter else self._dead_letters.dead_letters_of
        records = find(partition, offset)
        for number, record in enumerate(records):
            if number and not options.json:
                self._streams.print("")
            for line in [record_as_json(record)] if options.json else details(record, local=self._streams.local):
                self._streams.print(line)
        if not records:
            kind = "at" if options.dead_letter else "of the message at"
            self._streams.print_error(f"dead_letters: there is no dead letter {kind} {partition}:{offset}")
        return 0 if records else 1

    def _replay(self, options: argparse.Namespace) -> int:
        states = (State.WAITING, State.FOREIGN) if options.any_topic else (State.WAITING,)
        entries = self._dead_letters.entries()
        matching = _filter(options, states).apply(entries)
        selected = [entry for entry in matching if entry.position][: options.limit]
        if selected and not options.dry_run:
            return self.replay_entries(selected)
        self._print_entries(selected, as_json=options.json)
        self._streams.print_error(f"{_summary(entries, len(selected))}; nothing was produced")
        return 0

    def _print_entries(self, entries: Sequence[Entry], *, as_json: bool) -> None:
        lines = map(entry_as_json, entries) if as_json else table(entries, local=self._streams.local)
        for line in lines if entries else ():
            self._streams.print(line)


def _filter(options: argparse.Namespace, states: Sequence[State]) -> Filter:
    return Filter(states, options.reason, options.since, options.until, options.partition, options.offset)


def _summary(entries: Sequence[Entry], selected: int) -> str:
    if not entries:
        return "no dead letters"
    states = Counter(entry.state for entry in entries)
    counts = ", ".join(f"{states[state]} {state}" for state in State)
    repeated = sum(entry.copies - 1 for entry in entries)
    more = f"; {repeated} dead letters repeated after a crash" if repeated else ""
    subject = f"{selected} of {len(entries)}" if selected else f"no messages match, out of {len(entries)}"
    return f"{subject} dead-lettered messages ({counts}{more})"
