"""The limit of a Python process: two batches in flight, decoded and inserted, and nothing else.

No checks, no coordinates, no commits: nothing survives a failure.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from bench.programs.common import collection, consumer, documents, insert, setting, stop_on_sigterm

IN_FLIGHT = 2
POLL_TIMEOUT = 0.1  # seconds


def main() -> None:
    stop, source, target, size = stop_on_sigterm(), consumer(), collection(), int(setting("BATCH"))
    in_flight: deque[Future[None]] = deque()
    with ThreadPoolExecutor(max_workers=1) as writer:
        while not stop.is_set():
            if messages := source.consume(size, POLL_TIMEOUT):
                in_flight.append(writer.submit(lambda batch: insert(target, documents(batch)), messages))
            while len(in_flight) > IN_FLIGHT or (in_flight and in_flight[0].done()):
                in_flight.popleft().result()


if __name__ == "__main__":
    main()
