"""A disk is full: no file of that process may grow any more."""

from chaos import faults
from chaos.load import plain
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

ROOM = 100_000  # bytes


@scenario("undelivered-file", needs=("kafka.pause", "file limits"))
def disk_full_for_undelivered(trial: Trial) -> None:
    """While Kafka is frozen the producer has no room to keep what was not delivered; later it has."""
    trial.group()
    load = plain(trial.messages, trial.random)
    producer = trial.produce(load, max_retries=0, delivery_timeout_ms=2000)
    trial.processes.may_end(producer, 0, 1)
    trial.some_settled()
    with faults.full_disk(producer, ROOM), faults.frozen(trial.cluster.kafka):
        trial.sees(lambda: trial.says(producer, "can't be kept"), "/ready says that messages can't be kept")
    trial.healed()


@scenario("patience", needs=("sqlite", "file limits"))
def disk_full_for_sqlite(trial: Trial) -> None:
    """The consumers' SQLite file can't grow; later it can."""
    consumers = trial.under_load()
    with faults.full_disk(consumers[0], ROOM):
        trial.sees(lambda: trial.says(consumers[0], "SQLite"), f"{consumers[0].name} says that it can't store")
        trial.hold(5.0)
    trial.healed()
