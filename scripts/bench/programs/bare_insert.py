"""Inserts documents that were prepared before: what MongoDB's driver and the store alone cost."""

from bench.programs.common import Stopwatch, collection, consumer, documents, insert, setting

POLL_TIMEOUT = 0.05  # seconds


def main() -> None:
    source, target, size, expected = consumer(), collection(), int(setting("BATCH")), int(setting("MESSAGES"))
    prepared: list[dict[str, object]] = []
    while len(prepared) < expected:
        prepared += documents(source.consume(size, POLL_TIMEOUT))
    stopwatch = Stopwatch()
    for start in range(0, expected, size):
        insert(target, prepared[start : start + size])
    stopwatch.report(expected)


if __name__ == "__main__":
    main()
