"""Consumes the topic and looks at no message: what Kafka's client alone costs."""

from bench.programs.common import Stopwatch, consumer, setting

POLL_TIMEOUT = 0.05  # seconds


def main() -> None:
    source, size, expected = consumer(), int(setting("BATCH")), int(setting("MESSAGES"))
    received, stopwatch = 0, None
    while received < expected:
        if messages := source.consume(size, POLL_TIMEOUT):
            stopwatch = stopwatch or Stopwatch()
            received += len(messages)
    if stopwatch:
        stopwatch.report(received)


if __name__ == "__main__":
    main()
