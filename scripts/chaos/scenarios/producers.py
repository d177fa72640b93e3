"""Producers are killed and stopped."""

from chaos import faults
from chaos.load import plain
from chaos.scenarios.scenario import scenario
from chaos.trial import TimedOut, Trial
from local.children import Child


@scenario("deduplication")
def producer_killed(trial: Trial) -> None:
    """A producer is killed; what it reported as delivered is in the topic, and its whole input is sent again."""
    trial.start_consumers()
    load = plain(trial.messages, trial.random)
    producer = trial.start_producer(load)
    trial.wait_for_progress()
    trial.expect(lambda: trial.delivered(producer) > 0, f"{producer.name} reports delivered messages")
    delivered = trial.delivered(producer)
    trial.kill(producer)
    trial.healed()
    trial.expect(lambda: _in_topic(trial) >= delivered, f"{delivered:.0f} messages are in the topic, as reported")
    trial.start_producer(load)


@scenario("undelivered-folder")
def producer_stopped(trial: Trial) -> None:
    """A producer gets SIGTERM while the network to Kafka is frozen; what it accepted is in Kafka or undelivered."""
    trial.start_consumers()
    load = plain(trial.messages, trial.random)
    network = trial.network_to_kafka()
    producer = trial.start_producer(load, kafka=network)
    trial.processes.allow_exit(producer, 1)
    trial.wait_for_progress()
    with faults.network_frozen(network):
        trial.hold(1.0)
        trial.stop(producer)
    trial.healed()
    trial.accepted = load.first(_accepted(trial, producer))


def _in_topic(trial: Trial) -> int:
    progress = trial.watcher.read()
    return sum(progress.end.values()) if progress else 0


def _accepted(trial: Trial, producer: Child) -> int:
    """How many of its lines a producer had accepted when it was stopped."""
    ends = trial.logged(producer, "input not fully delivered")
    if not ends:
        raise TimedOut(f"{producer.name} did not log how many lines it accepted")
    return int(ends[-1]["read"])
