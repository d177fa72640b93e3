"""The audit: messages compared per second."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench import consumers
from bench.parts.producer import measured_process
from bench.results import Row, failures_noted
from bench.running import SelfMeasured, run_contender
from bench.stores import Store
from bench.workbench import SMALL, Workbench
from local.plan import ROOT, command


def run(bench: Workbench) -> list[Row]:
    return [_row(bench, store) for store in (*bench.further_stores, bench.sqlite)]


def _row(bench: Workbench, store: Store) -> Row:
    row, messages = Row("audit", "our audit", f"{bench.sizes.messages:,} messages", store.name), bench.sizes.messages
    bench.show(row.title)
    with ExitStack() as stored, failures_noted(row):
        small, large = (stored.enter_context(_consumed(bench, store, count)) for count in (SMALL, messages))
        for number, _ in bench.turns([None]):
            bench.show(f"{row.title}, round {number}")
            start, done = small(), large()
            row.add(
                messages_per_second=(messages - SMALL) / (done.seconds - start.seconds),
                cpu_us=(done.cpu_seconds - start.cpu_seconds) / (messages - SMALL) * 1e6,
                peak_mib=done.peak_bytes / 2**20,
            )
    return row


@contextmanager
def _consumed(bench: Workbench, store: Store, messages: int) -> Iterator[Callable[[], SelfMeasured]]:
    """Runs the audit of this number of messages, which our consumer has stored and committed."""
    embedded = bench.kafka.embedded
    job, folder = bench.job(bench.kafka.filled(messages), store, 5_000)
    bench.kafka.expect_members(1)
    try:
        run_contender(consumers.ours(embedded=embedded), job, store, messages, folder)
        audit = command("src.audit", consumers.settings_file(job, folder, embedded=embedded), "--json")
        yield lambda: measured_process(audit, ROOT / "consumer", folder, messages)
    finally:
        store.drop(job.collection)
