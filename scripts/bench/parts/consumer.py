"""Consumers: ours, the limits, the textbook's and the peers, into each store."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench import consumers
from bench.contender import Contender
from bench.kafka import PARTITIONS
from bench.peers import PEERS
from bench.results import Row, failures_noted
from bench.running import Finished, run_contender, self_measured
from bench.stores import AcknowledgingStore, Store
from bench.workbench import SMALL, Workbench
from local.errors import CannotRun

BATCH = 5_000  # the default of the consumer
LEAST = 5_000  # messages, or the start of a process would be all that is measured


@dataclass
class Entry:
    """A row of the table, and what is needed to measure it once more."""

    row: Row
    contender: Contender
    store: Store
    batch: int
    replicas: int = 1
    partitions: int = PARTITIONS
    padding: int = 0

    @property
    def start(self) -> tuple[str, str, int]:
        """Entries with the same start have the same CPU time before the first message."""
        return self.contender.name, self.store.kind, self.replicas


def run(bench: Workbench) -> list[Row]:
    wanted = [peer for peer in PEERS if bench.options.peers and bench.options.includes(peer.name)]
    peers, skipped = installed(wanted, bench.show, embedded=bench.kafka.embedded)
    entries = [
        Entry(_row("consumer", contender, store, batch), contender, store, batch)
        for store in bench.stores
        for contender in [consumers.ours(embedded=bench.kafka.embedded), *consumers.limits(), *peers]
        if store.kind in contender.stores and bench.options.includes(contender.name)
        for batch in contender.batches
    ]
    measure(bench, entries, bench.sizes.messages)
    return [*(entry.row for entry in entries), *skipped, *_limits_of_libraries(bench)]


def installed(
    peers: Iterable[Contender], show: Callable[[str], None], *, embedded: bool
) -> tuple[list[Contender], list[Row]]:
    """The peers, and for each that cannot run here a row with the reason."""
    ready, skipped = [], []
    for peer in peers:
        show(f"installing {peer.name}")
        try:
            if embedded and not peer.on_embedded:
                raise CannotRun("it does not work with the embedded broker; use --kafka")
            peer.prepare()
            ready.append(peer)
        except CannotRun as error:
            skipped.append(Row("consumer", peer.name, note=f"skipped: {error}"))
    return ready, skipped


def replicas(bench: Workbench) -> list[Row]:
    """One consumer and three. The partitions are divided among them."""
    ours = consumers.ours(embedded=bench.kafka.embedded)
    entries = [
        Entry(_row("replicas", ours, store, BATCH, replicas), ours, store, BATCH, replicas)
        for store in (bench.acknowledging, bench.sqlite)
        for replicas in (1, 3)
    ]
    measure(bench, entries, bench.sizes.messages)
    return [entry.row for entry in entries]


def growth(bench: Workbench) -> list[Row]:
    """By the size of the messages, and by the number of partitions."""
    ours, store = consumers.ours(embedded=bench.kafka.embedded), bench.acknowledging
    entries = [
        *(
            Entry(_grown(f"messages {size:,} bytes larger"), ours, store, BATCH, padding=size)
            for size in (1_000, 10_000)
        ),
        *(Entry(_grown(f"partitions: {count}"), ours, store, BATCH, partitions=count) for count in (1, PARTITIONS, 60)),
    ]
    measure(bench, entries, bench.sizes.messages // 10)
    return [entry.row for entry in entries]


def _grown(setting: str) -> Row:
    return Row("growth", "our consumer", setting, AcknowledgingStore.name)


def catch_up(bench: Workbench) -> list[Row]:
    ours = consumers.ours(embedded=bench.kafka.embedded)
    store = bench.further_stores[0] if bench.further_stores else bench.acknowledging
    messages = bench.sizes.catch_up
    entry = Entry(_row("catch-up", ours, store, BATCH), ours, store, BATCH)
    entry.row.setting += f", {messages:,} messages"
    measure(bench, [entry], messages, rounds=1)
    return [entry.row]


def measure(bench: Workbench, entries: Sequence[Entry], messages: int, rounds: int | None = None) -> None:
    """The contenders take turns. What cannot be measured has the reason as its note."""
    starts = _starts(bench, entries)
    for number, entry in bench.turns(entries, rounds):
        if not entry.row.failed:
            bench.show(f"{entry.row.title}, round {number}")
            with failures_noted(entry.row):
                _measure(bench, entry, max(LEAST, int(messages * entry.contender.share)), starts[entry.start])


def _starts(bench: Workbench, entries: Sequence[Entry]) -> dict[tuple[str, str, int], float]:
    """CPU seconds until the first messages are stored."""
    starts = {}
    for start in dict.fromkeys(entry.start for entry in entries):
        same = [entry for entry in entries if entry.start == start]
        with failures_noted(*(entry.row for entry in same)):
            starts[start] = _start(bench, same[0])
    return starts


def _start(bench: Workbench, entry: Entry) -> float:
    bench.show(f"{entry.row.title}, warm-up")
    return min(_run(bench, entry, SMALL).cpu_seconds for _ in range(bench.sizes.starts))


def _measure(bench: Workbench, entry: Entry, messages: int, start_cpu_seconds: float) -> None:
    done = _run(bench, entry, messages)
    server = done.server_cpu_seconds
    entry.row.add(
        messages_per_second=done.messages_per_second,
        cpu_us=(done.cpu_seconds - start_cpu_seconds) / (messages - SMALL) * 1e6,
        sent_bytes=done.sent_bytes and done.sent_bytes / messages,
        peak_mib=done.peak_bytes / 2**20,
        server_cpu_us=server and server / messages * 1e6,
    )


def _run(bench: Workbench, entry: Entry, messages: int) -> Finished:
    topic = bench.kafka.filled(messages, partitions=entry.partitions, padding=entry.padding)
    job, folder = bench.job(topic, entry.store, entry.batch)
    bench.kafka.expect_members(entry.replicas)
    try:
        return run_contender(entry.contender, job, entry.store, messages, folder, entry.replicas)
    finally:
        entry.store.drop(job.collection)


def _row(part: str, contender: Contender, store: Store, batch: int, replicas: int = 1) -> Row:
    return Row(
        part,
        contender.name,
        f"batch {batch:,}" + (f", {replicas} replicas" if replicas > 1 else ""),
        store.name,
        contender.guarantee,
        contender.note,
    )


def _limits_of_libraries(bench: Workbench) -> list[Row]:
    """Kafka's client alone, and MongoDB's driver alone."""
    stores = [store for store in bench.stores if store.kind == "mongodb"]
    rows = [
        (Row("consumer", "bare consume", f"batch {BATCH:,}"), stores[0]),
        *((Row("consumer", "bare insert", f"batch {BATCH:,}", store.name), store) for store in stores),
    ]
    rows = [(row, store) for row, store in rows if bench.options.includes(row.contender)]
    for number, (row, store) in bench.turns(rows):
        bench.show(f"{row.title}, round {number}")
        with failures_noted(row):
            _measure_library(bench, row, store)
    return [row for row, _ in rows]


def _measure_library(bench: Workbench, row: Row, store: Store) -> None:
    messages = bench.sizes.messages
    job, folder = bench.job(bench.kafka.filled(messages), store, BATCH)
    store.create(job.collection)
    try:
        done = self_measured(row.contender, {**job.environment, "BENCH_MESSAGES": str(messages)}, folder)
        sent = store.progress(job.collection).sent_bytes
    finally:
        store.drop(job.collection)
    row.add(
        messages_per_second=done.messages_per_second, cpu_us=done.cpu_us, sent_bytes=sent / messages if sent else None
    )
