"""The audit: messages compared per second."""

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
    with failures_noted(row):
        small, large = (_Consumed(bench, store, count) for count in (SMALL, messages))
        for number, _ in bench.turns([None]):
            bench.show(f"{row.title}, round {number}")
            start, done = small.audit(), large.audit()
            row.add(
                messages_per_second=(messages - SMALL) / (done.seconds - start.seconds),
                cpu_us=(done.cpu_seconds - start.cpu_seconds) / (messages - SMALL) * 1e6,
                peak_mib=done.peak_bytes / 2**20,
            )
    return row


class _Consumed:
    """A topic whose messages our consumer has stored, and committed."""

    def __init__(self, bench: Workbench, store: Store, messages: int) -> None:
        self._messages = messages
        self._embedded = bench.kafka.embedded
        self._job, self._folder = bench.job(bench.kafka.filled(messages), store, 5_000)
        run_contender(consumers.ours(embedded=self._embedded), self._job, store, messages, self._folder)

    def audit(self) -> SelfMeasured:
        settings = consumers.settings_file(self._job, self._folder, embedded=self._embedded)
        return measured_process(
            command("src.audit", settings, "--json"), ROOT / "consumer", self._folder, self._messages
        )
