"""A disk is full: no file of a process can grow."""

from chaos import faults
from chaos.load import plain
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

FILE_LIMIT = 100_000  # bytes


@scenario("undelivered-folder", requires=("kafka.pause", "file limits"))
def disk_full_for_undelivered(trial: Trial) -> None:
    """While Kafka is frozen, the producer has no disk space for undelivered messages; later it has."""
    trial.start_consumers()
    load = plain(trial.messages, trial.random)
    producer = trial.start_producer(load, max_retries=0, delivery_timeout_ms=2000)
    trial.processes.allow_exit(producer, 0, 1)
    trial.wait_for_progress()
    with faults.disk_full(producer, FILE_LIMIT), faults.frozen(trial.cluster.kafka):
        trial.expect(lambda: trial.not_ready(producer, "cannot write"), "/ready names the undelivered messages")
    trial.healed()


@scenario("retry-while-unavailable", requires=("sqlite", "file limits"))
def disk_full_for_sqlite(trial: Trial) -> None:
    """The consumers' SQLite file cannot grow; later it can."""
    consumers = trial.start_load()
    with faults.disk_full(consumers[0], FILE_LIMIT):
        trial.expect(lambda: trial.not_ready(consumers[0], "SQLite"), f"/ready of {consumers[0].name} names SQLite")
        trial.hold(5.0)
    trial.healed()
