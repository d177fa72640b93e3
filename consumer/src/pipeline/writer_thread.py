"""Runs the batch writer in a thread of its own, so that the loop keeps polling during an outage of any length."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self

from src.model.errors import Unavailable
from src.model.record import Record
from src.pipeline.batch_writer import BatchWriter, Result
from src.pipeline.retry import WriterStopped
from src.pipeline.storm_guard import StormGuard

MAX_IN_FLIGHT = 2  # batches: one being written, and one waiting
POLL_INTERVAL = 0.05  # seconds between two checks of the batches in flight


class WriterThread:
    """Batches go in, results come out in the same order.

    A batch has one result, in a dead-letter storm several or none. An error that ends a batch is raised by `results`.
    """

    def __init__(self, writer: BatchWriter, executor: Executor | None = None) -> None:
        self._writer = writer
        self._executor = executor or _DaemonExecutor("writer")
        self._prepared: Future[None] | None = None
        self._in_flight: deque[Future[None]] = deque()
        self._settled: deque[Result] = deque()
        self._ping: Future[None] | None = None

    @property
    def blocked_by(self) -> Unavailable | None:
        """Why the writer makes no progress; None while it does."""
        return self._writer.blocked_by

    @property
    def store_reached(self) -> bool:
        """Whether a call to the store has succeeded since the start."""
        return self._writer.store_reached

    @property
    def storm_guard(self) -> StormGuard:
        return self._writer.storm_guard

    @property
    def full(self) -> bool:
        return len(self._in_flight) >= MAX_IN_FLIGHT or self.storm_guard.full

    @property
    def idle(self) -> bool:
        return not self._in_flight and (self._ping is None or self._ping.done())

    def submit(self, records: Sequence[Record]) -> None:
        self._in_flight.append(self._executor.submit(self._write, records))

    def probe_if_due(self) -> None:
        """Settle what a dead-letter storm has held back, as far as it is due, where no batch is there to do it."""
        if self.idle and self.storm_guard.due:
            self.submit(())

    def ping(self) -> None:
        """Ping the store in this thread; `blocked_by` shows the result."""
        self._ping = self._executor.submit(self._writer.ping)

    def call(self, function: Callable[[], None]) -> Future[None]:
        """Run a short function in this thread, between batches."""
        return self._executor.submit(function)

    def results(self, timeout: float = 0.0) -> list[Result]:
        """The results so far, in order; waits up to `timeout` seconds for the first batch to end. Raises its error."""
        if self._prepared is not None and self._prepared.done():
            _raise_error(self._prepared)
        if self._in_flight:
            wait([self._in_flight[0]], timeout)
        ended = [batch for batch in self._in_flight if batch.done()]  # first, so that all their results are there
        results = [self._settled.popleft() for _ in range(len(self._settled))]
        for batch in ended:
            if results and batch.exception():
                break  # the results before the error come first; the next call raises it
            _raise_error(self._in_flight.popleft())
        return results

    def drain(self, timeout: float) -> list[Result]:
        """The results until nothing is in flight, the timeout expires, or the writer waits for a dependency.

        Always waits for dead letters that are being written: they cannot be recognized as duplicates later.
        """
        deadline = time.monotonic() + timeout
        results = self.results()
        while self._in_flight and not self._writer.waiting and self._has_time(deadline):
            results += self.results(POLL_INTERVAL)
        return results

    def _has_time(self, deadline: float) -> bool:
        return time.monotonic() < deadline or self._writer.writing_dead_letters

    def _write(self, records: Sequence[Record]) -> None:
        for result in self._writer.write(records):
            self._settled.append(result)

    def __enter__(self) -> Self:
        self._prepared = self._executor.submit(self._writer.prepare)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._writer.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)


class _DaemonExecutor(Executor):
    """Runs calls one after the other in a daemon thread.

    The end of the process waits for a call in progress of a ThreadPoolExecutor: up to the call's whole timeout, where a
    server does not respond.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, partial(function, *arguments, **options)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with suppress(Empty):
            while cancel_futures:
                call = self._calls.get_nowait()
                if call is not None:
                    call[0].cancel()
        self._calls.put(None)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        for future, call in iter(self._calls.get, None):
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - the future raises it
                    future.set_exception(error)


def _raise_error(future: Future[None]) -> None:
    """Raise the error that ended the batch, unless the writer was stopped."""
    with suppress(WriterStopped):
        future.result()
