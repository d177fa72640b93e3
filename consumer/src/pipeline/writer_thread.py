"""The writer in a thread of its own, so that an outage of any length leaves the polling alone."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Self

from src.model.errors import Unavailable
from src.model.record import Record
from src.pipeline.batch_writer import Abandoned, BatchWriter, Result

SLOTS = 2  # batches in flight: one being written, one behind it
GLANCE = 0.05  # seconds between two looks at what is in flight


class WriterThread:
    """Runs a BatchWriter beside the loop: batches go in, results come out in the same order.

    A batch has one result, in a dead-letter storm several. Whatever ends one with an error is raised by `results`.
    """

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._prepared: Future[None] | None = None
        self._in_flight: deque[Future[None]] = deque()
        self._settled: deque[Result] = deque()
        self._looking: Future[None] | None = None

    @property
    def obstacle(self) -> Unavailable | None:
        """What the writer waits for; None while it gets on."""
        return self._writer.obstacle

    @property
    def full(self) -> bool:
        return len(self._in_flight) >= SLOTS

    @property
    def idle(self) -> bool:
        return not self._in_flight and (self._looking is None or self._looking.done())

    def submit(self, records: Sequence[Record]) -> None:
        self._in_flight.append(self._executor.submit(self._write, records))

    def look(self) -> None:
        """Have the store asked whether it is there; the answer shows in `obstacle`."""
        self._looking = self._executor.submit(self._writer.look)

    def results(self, timeout: float = 0.0) -> list[Result]:
        """What is settled, in order; waits up to `timeout` seconds for a batch to end. Raises what ended one."""
        if self._prepared is not None and self._prepared.done():
            _let_end(self._prepared)
        if self._in_flight:
            wait([self._in_flight[0]], timeout)
        ended = [batch for batch in self._in_flight if batch.done()]  # before their results are taken: so all are there
        results = [self._settled.popleft() for _ in range(len(self._settled))]
        for batch in ended:
            if results and batch.exception():
                break  # what is settled comes first; the error is raised by the next call
            _let_end(self._in_flight.popleft())
        return results

    def settle_all(self, timeout: float) -> list[Result]:
        """What is settled once nothing is in flight, the time is over, or the writer is held up."""
        deadline = time.monotonic() + timeout
        results = self.results()
        while self._in_flight and not self._writer.held_up and time.monotonic() < deadline:
            results += self.results(GLANCE)
        return results

    def _write(self, records: Sequence[Record]) -> None:
        while records:
            result = self._writer.write(records)
            if result.records:
                self._settled.append(result)
            records = result.rest

    def __enter__(self) -> Self:
        self._prepared = self._executor.submit(self._writer.prepare)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._writer.give_up()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _let_end(future: Future[None]) -> None:
    """Raises what ended it, unless the writer gave up because the program stops."""
    with suppress(Abandoned):
        future.result()
