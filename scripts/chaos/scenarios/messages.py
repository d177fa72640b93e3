"""Messages that cannot be stored, that are repeated, or that have another version; and a wrong clock."""

import signal

from chaos.load import mixed, plain, rejected_by_store, two_versions
from chaos.plan import PARTITIONS
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial
from local.children import Child

DUPLICATES = 10_000
HOUR = 3600
BROKEN = 3  # a partition
SOON = 5.0  # seconds
VALIDATOR = {"name": {"$not": {"$regex": "7$"}}}  # rejects one name in ten


@scenario("dead-lettering")
def poison_1_percent(trial: Trial) -> None:
    """One message in a hundred is invalid."""
    trial.start_load(load=mixed(trial.messages, trial.random, invalid=0.01))


@scenario("dead-lettering")
def poison_50_percent(trial: Trial) -> None:
    """Every other message is invalid."""
    trial.start_load(load=mixed(trial.messages, trial.random, invalid=0.5))


@scenario("dead-letter-storm-limit")
def poison_100_percent(trial: Trial) -> None:
    """Every message is invalid: the consumer pauses and says why, and continues when it may dead-letter any share."""
    [consumer] = trial.start_consumers(1)
    trial.start_producer(mixed(trial.messages, trial.random, invalid=1.0))
    trial.expect(lambda: trial.not_ready(consumer, "dead_letter_storm"), "/ready names the dead-letter storm")
    trial.stop(consumer)
    trial.processes.start_consumer(dead_letter_storm_percent=100)
    trial.healed()


@scenario("storms-by-partition", "dead-letter-storm-limit")
def poison_one_partition(trial: Trial) -> None:
    """One partition of six is full of invalid messages: the consumer pauses it and names it, and the other partitions
    are settled as fast as messages arrive."""
    [consumer] = trial.start_consumers(1)
    trial.produce_raw(mixed(trial.messages, trial.random, invalid=1.0), partitions=[BROKEN])
    name = f"{trial.names.topic}[{BROKEN}]"
    trial.expect(lambda: trial.not_ready(consumer, name), "/ready names the partition in a dead-letter storm")
    trial.start_producer(plain(trial.messages, trial.random))
    trial.wait_until_produced()
    others = [partition for partition in range(PARTITIONS) if partition != BROKEN]
    trial.expect(lambda: trial.caught_up_in(others), "the other partitions have no lag", SOON)
    trial.expect(lambda: trial.not_ready(consumer, name), "the partition is still in a dead-letter storm")
    trial.stop(consumer)
    trial.processes.start_consumer(dead_letter_storm_percent=100)
    trial.healed()


@scenario("dead-lettering")
def documents_no_store_accepts(trial: Trial) -> None:
    """One message in fifty is valid, but no store accepts it."""
    trial.start_load(load=rejected_by_store(trial.messages, trial.random))


@scenario("dead-lettering")
def header_names_not_utf8(trial: Trial) -> None:
    """Another client produces messages with header names that are not UTF-8; one in twenty is invalid."""
    trial.start_consumers()
    trial.produce_raw(mixed(trial.messages, trial.random, invalid=0.05), headers=((b"caf\xe9", b"1"), (b"\xff", None)))


@scenario("dead-lettering", requires=("mongodb",))
def documents_mongodb_rejects(trial: Trial) -> None:
    """MongoDB's schema validation rejects one document in ten, within larger bulk writes."""
    trial.admin.create_collection(VALIDATOR)
    load = plain(trial.messages, trial.random)
    trial.start_load(load=load.rejecting(lambda message: message["name"].endswith("7")))


@scenario("deduplication")
def duplicates_replayed(trial: Trial) -> None:
    """10,000 messages are sent, and then all of them again."""
    load = plain(DUPLICATES, trial.random)
    trial.start_load(load=load)
    trial.wait_until_settled()
    trial.start_producer(load, seconds=5.0)
    trial.healed()


@scenario("unknown-fields")
def two_message_versions(trial: Trial) -> None:
    """Every other message is of a later version: with unknown fields, and without some known ones."""
    trial.start_load(load=two_versions(trial.messages, trial.random))


@scenario("deduplication")
def clock_set_back(trial: Trial) -> None:
    """Under load a consumer's clock is set back by an hour; then it is killed with a batch stored and not committed."""
    trial.processes.start_consumer()
    kill_at = f"stored:{trial.random.randint(1, 5)}"
    victim = trial.processes.start_consumer(options=["--clock-back", str(HOUR), "--kill-at", kill_at])
    trial.wait_for_assignment(trial.consumers)
    trial.start_producer()
    trial.wait_for_progress()
    _set_clock_back(trial, victim)
    trial.wait_until_killed(victim)
    trial.healed()
    [successor] = trial.start_consumers(1, options=["--clock-back", str(HOUR)])
    _set_clock_back(trial, successor)


def _set_clock_back(trial: Trial, consumer: Child) -> None:
    """Of a consumer that was started with --clock-back."""
    consumer.send_signal(signal.SIGUSR1)
    trial.expect(lambda: trial.logged(consumer, "clock set back"), f"{consumer.name} logs that its clock was set back")
